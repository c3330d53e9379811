/* SPDX-License-Identifier: GPL-2.0 */
/* The end of a process: the tracepoints sched_process_exit, signal_generate (SIGCHLD) and sched_process_free. */
#ifndef OOMTRACE_HOOKS_EXIT_H
#define OOMTRACE_HOOKS_EXIT_H

#include "sigkill.h"
#include "victim.h"

/*
 * Whether this was the last thread of its process.  Since Linux commit "exit: move and extend sched_process_exit()
 * tracepoint" (in v6.16) an argument of the tracepoint says so.  Before, several threads that exit at the same time may
 * each find no other thread, so the one that deletes the process's map entry handles the exit.
 */
inline_always bool is_last(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];
	struct signal_struct *signal = READ(task, signal);

	if (EXISTS(trace_event_raw_sched_process_exit, group_dead))
		return (bool)ctx->args[1];
	return READ(signal, live.counter) <= 0;
}

/* The last thread of a process exits or has exited.  May be called several times; the exit is sent once. */
inline_always void handle_exit(struct task_struct *task, u32 place)
{
	struct task_struct *leader = READ(task, group_leader);
	u32 pid = READ(task, tgid);
	struct victim exited = { .started_ns = READ(leader, start_boottime), .exited_ns = bpf_ktime_get_boot_ns() };
	struct victim *victim = map_lookup(awaiting_exit, &pid), removed;
	bool awaits_mark = is_entry_of(map_lookup(awaiting_mark, &pid), exited.started_ns);

#ifndef OOMTRACE_HEADERS /* compiled by bcc from headers, the verifier of 6.1 rejects it (EFAULT) */
	if (setting(sigkill) != SIGKILL_OFF)
		handle_sigkill_exit(place, task, pid, exited.started_ns, awaits_mark);
#endif
	if (victim || !awaits_mark) /* else on_mark_victim still needs it */
		map_delete(cmdlines, &pid);
	if (!victim) {
		if (!awaits_mark)
			return;
		if (!map_update(awaiting_exit, &pid, &exited, BPF_NOEXIST))
			return; /* on_mark_victim sends the exit */
		victim = map_lookup(awaiting_exit, &pid);
	}
	if (!is_entry_of(victim, exited.started_ns) || victim->exited_ns)
		return;
	removed = *victim;
	if (map_delete(awaiting_exit, &pid))
		return;
	map_delete(awaiting_mark, &pid);
	send_exit(pid, &removed, exited.exited_ns);
}

SEC("raw_tp/sched_process_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];

	if ((u32)READ(task, tgid) != bpf_get_current_pid_tgid() >> 32)
		count(COUNTER_MISREAD);
	if (is_last(ctx))
		handle_exit(task, SCRATCH_EXIT);
	return 0;
}

/*
 * Repeats on_exit, which the kernel skips while another task is preempted in it on the same CPU.  That happens often to
 * a task killed on a busy CPU: the daemon that it wakes preempts it.  SIGCHLD to the parent is sent under a lock with
 * interrupts off, so this program is never skipped.
 */
SEC("raw_tp/signal_generate")
int on_exit_signal(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct signal_struct *signal;

	if (ctx->args[0] != SIGNAL_CHILD)
		return 0;
	signal = READ(task, signal);
	if (READ(signal, live.counter) <= 0)
		handle_exit(task, SCRATCH_SIGNAL);
	return 0;
}

#define DELETE_OWN(map, pid, started_ns)                                                                               \
	({                                                                                                             \
		bool is_its_ = is_entry_of(map_lookup(map, pid), started_ns);                                          \
		if (is_its_)                                                                                           \
			map_delete(map, pid);                                                                          \
		is_its_;                                                                                               \
	})

/* After the exit and the parent's wait: no further event of this task follows. */
SEC("raw_tp/sched_process_free")
int on_free(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];
	u64 started_ns = READ(task, start_boottime);
	u32 tid = READ(task, pid);

	map_delete(victim_by_tid, &tid);
	if (tid != (u32)READ(task, tgid))
		return 0;
	DELETE_OWN(awaiting_exit, &tid, started_ns);
	DELETE_OWN(sigkilled, &tid, started_ns);
	/* Sent SIGKILL and never marked: on_exit has kept the command line for the mark. */
	if (DELETE_OWN(awaiting_mark, &tid, started_ns))
		map_delete(cmdlines, &tid);
	return 0;
}

#endif
