/* SPDX-License-Identifier: GPL-2.0 */
/* The end of a process: the tracepoints sched_process_exit, signal_generate (SIGCHLD) and sched_process_free. */
#ifndef OOMTRACE_HOOKS_EXIT_H
#define OOMTRACE_HOOKS_EXIT_H

#include "sigkill.h"
#include "victim.h"

/*
 * Whether this was the last thread of its process.  Since Linux commit "exit: move and extend sched_process_exit()
 * tracepoint" (in v6.16) the tracepoint says so.  Before, several threads that exit at once may each see that nobody is
 * left: what is done for the process must be done once, by who removes its entry from a map.
 */
inline_always bool is_last(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];
	struct signal_struct *signal = READ(task, signal);

	if (EXISTS(trace_event_raw_sched_process_exit, group_dead))
		return (bool)ctx->args[1];
	return READ(signal, live.counter) <= 0;
}

/* A process whose last thread exits, or has exited: what is done for it is done once. */
inline_always void handle_exit(struct task_struct *task, u32 place)
{
	struct task_struct *leader = READ(task, group_leader);
	u32 pid = READ(task, tgid);
	struct victim gone = { .started_ns = READ(leader, start_boottime), .exited_ns = bpf_ktime_get_boot_ns() };
	struct victim *victim = map_lookup(awaiting_exit, &pid), removed;
	bool awaits_mark = is_entry_of(map_lookup(awaiting_mark, &pid), gone.started_ns);

#ifndef OOMTRACE_HEADERS /* as bcc compiles it from headers the verifier of 6.1 gives up (EFAULT) */
	if (setting(sigkill) != SIGKILL_OFF)
		handle_sigkill_exit(place, task, pid, gone.started_ns, awaits_mark);
#endif
	if (victim || !awaits_mark) /* else mark_victim still asks for it */
		map_delete(cmdlines, &pid);
	if (!victim) {
		if (!awaits_mark)
			return;
		if (!map_update(awaiting_exit, &pid, &gone, BPF_NOEXIST))
			return; /* for mark_victim to find */
		victim = map_lookup(awaiting_exit, &pid);
	}
	if (!is_entry_of(victim, gone.started_ns) || victim->exited_ns)
		return;
	removed = *victim;
	if (map_delete(awaiting_exit, &pid))
		return;
	map_delete(awaiting_mark, &pid);
	send_exit(pid, &removed, gone.exited_ns);
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
 * Once more, for a task that exits on a CPU where another one was preempted in on_exit, which is then skipped: one that
 * is killed on a busy CPU often is, by the daemon that it wakes.  Its parent is sent SIGCHLD under a lock, with
 * interrupts off: this program is never skipped.
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

/* After its exit, and once its parent knows of it: nothing happens to a task any more. */
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
	if (DELETE_OWN(awaiting_mark, &tid,
		       started_ns)) /* killed, and never marked: on_exit has left it for the mark */
		map_delete(cmdlines, &tid);
	return 0;
}

#endif
