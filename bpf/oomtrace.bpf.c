// SPDX-License-Identifier: GPL-2.0
/*
 * Catches every kill of the kernel's OOM killer.
 *
 * All of the OOM path runs in the task that asked for memory (the trigger), one at a time under oom_lock: one
 * incident is kept in a map of one element, and its owner is told by thread id.
 *
 *   out_of_memory            the scan for a victim begins
 *     oom_badness            one candidate
 *     oom_kill_process       the incident begins
 *       __oom_kill_process   a real kill, not just a mark
 *         signal_generate    SIGKILL: the victim, later those who share its memory
 *         mark_oom_victim    the victim, as a task
 *           mark_victim      EVENT_VICTIM, before the first one EVENT_INCIDENT; the tracepoint fires once a victim, the
 *                            function may run twice
 *     return                 EVENT_END
 *
 * The kernel skips kprobes while a BPF map is worked on from user space on the same CPU (bpf_prog_active), and since
 * about v7.0, where tracepoints can be preempted, a raw tracepoint's program while it is interrupted on that CPU.  So a
 * victim depends on no single hook: mark_victim sends all that is known, SIGKILL and the exit are seen in two places
 * each, and the end of an incident that is missing is concluded by user space.
 *
 * Without kprobes (settings.kprobes is 0) the incident begins with the kernel log's first line about it, and a victim
 * is done with "Killed process"; printk:console shows them in the same context.
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
