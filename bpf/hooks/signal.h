/* SPDX-License-Identifier: GPL-2.0 */
/* SIGKILL from the OOM killer and from other senders: the tracepoint signal_generate. */
#ifndef OOMTRACE_HOOKS_SIGNAL_H
#define OOMTRACE_HOOKS_SIGNAL_H

#include "hooks/oom_kill.h"
#include "sigkill.h"

/* SIGKILL from the OOM path: to the victim before its mark, then to processes that share its memory. */
inline_always void handle_oom_sigkill(struct task_struct *task)
{
	struct shared_mm_event event = {};
	struct task_struct *leader = READ(task, group_leader);
	struct incident_state *state = current_incident();
	u64 started_ns = READ(leader, start_boottime);
	u32 pid = READ(task, tgid);

	if (state && state->victim_mm && state->victim_pid != pid && READ(task, mm) == state->victim_mm) {
		map_update(sigkilled, &pid, &started_ns, BPF_ANY);
		if (state->victim_brief)
			return;
		event.victim_pid = state->victim_pid;
		event.pid = pid;
		bpf_probe_read_kernel(event.comm, sizeof(event.comm), &task->comm);
		stamp(&event.event, EVENT_SHARED_MM, state->incident_ns);
		send(&event, sizeof(event));
		return;
	}
	if (state && setting(kprobes) && state->killed_again == pid)
		send_killed_again(state, READ(task, pid));
	else if (state && !setting(kprobes) && is_killed_again(task, state))
		state->killed_again = READ(task, pid); /* to be confirmed by the kernel log */
	expect_mark(task); /* with kprobes, too: a kprobe that interrupts another BPF program is skipped */
}

SEC("raw_tp/signal_generate")
int on_signal_generate(struct bpf_raw_tracepoint_args *ctx)
{
	if (ctx->args[0] != SIGNAL_KILL)
		return 0;
	if (ctx->args[1] == INFO_FROM_KERNEL)
		handle_oom_sigkill((struct task_struct *)ctx->args[2]);
	else if (setting(sigkill) != SIGKILL_OFF && ctx->args[4] == SIGNAL_DELIVERED)
		handle_sigkill((struct task_struct *)ctx->args[2], (struct kernel_siginfo *)ctx->args[1]);
	return 0;
}

#endif
