/* SPDX-License-Identifier: GPL-2.0 */
/* Stores command lines at exec: the tracepoint sched_process_exec. */
#ifndef OOMTRACE_HOOKS_EXEC_H
#define OOMTRACE_HOOKS_EXEC_H

#include "incident.h"

inline_always void store_cmdline(u32 pid, struct mm_struct *mm)
{
	u32 zero = 0;
	struct cmdline *cmdline, *empty = map_lookup(empty_cmdline, &zero);
	u64 arg_start = READ(mm, arg_start), len;

	if (!empty || map_update(cmdlines, &pid, empty, BPF_ANY))
		return;
	cmdline = map_lookup(cmdlines, &pid);
	if (!cmdline)
		return;
	len = clamp_to(READ(mm, arg_end) - arg_start, CMDLINE_LEN);
	if (bpf_probe_read_user(cmdline->bytes, len, (const void *)arg_start))
		return;
	cmdline->len = len;
	cmdline->arg_start = arg_start;
}

SEC("raw_tp/sched_process_exec")
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct mm_struct *mm = READ(task, mm);
	u32 pid = bpf_get_current_pid_tgid() >> 32;

	store_cmdline(pid, mm);
	return 0;
}

/* Repeats on_exec, which the kernel skips while another task is preempted in it on the same CPU. */
SEC("raw_tp/sched_process_exec")
int on_exec_again(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct mm_struct *mm = READ(task, mm);
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct cmdline *cmdline = map_lookup(cmdlines, &pid);

	if (!cmdline || cmdline->arg_start != READ(mm, arg_start))
		store_cmdline(pid, mm);
	return 0;
}

#endif
