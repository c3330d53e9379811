// SPDX-License-Identifier: GPL-2.0
/*
 * Traces every kill of the kernel's OOM killer.
 *
 * All of the OOM path runs in the task that requested memory (the trigger), one at a time under oom_lock.  So the
 * incident is kept in a map of one element, and the trigger's thread id identifies its owner.
 *
 *   out_of_memory            the scan for a victim begins
 *     oom_badness            scores one candidate
 *     oom_kill_process       the incident begins
 *       __oom_kill_process   a kill, not only a mark
 *         signal_generate    SIGKILL: to the victim, then to processes that share its memory
 *         mark_oom_victim    the victim, as a task
 *           mark_victim      EVENT_VICTIM, the first one preceded by EVENT_INCIDENT; the tracepoint fires once per
 *                            victim, the function may run twice
 *     return                 EVENT_END
 *
 * The kernel skips kprobe programs while user space accesses a BPF map on the same CPU (bpf_prog_active).  Since about
 * v7.0, where tracepoints can be preempted, it also skips a raw tracepoint's program while the same program is
 * interrupted on that CPU.  So no victim depends on a single hook: mark_victim sends all that is known, two programs
 * each see SIGKILL and the exit, and user space infers a missing end of an incident.
 *
 * Without kprobes (settings.kprobes is 0) an incident begins with the kernel log's first line about it, and a victim
 * ends with "Killed process"; printk:console shows these lines in the same context.
 */
#include "engine.h"
#include "hooks/scan.h"
#include "hooks/oom_kill.h"
#include "hooks/mark_victim.h"
#include "hooks/signal.h"
#include "hooks/console.h"
#include "hooks/exec.h"
#include "hooks/cgroup.h"
#include "hooks/exit.h"

#ifndef OOMTRACE_BCC
char LICENSE[] SEC("license") = "GPL";
#endif
