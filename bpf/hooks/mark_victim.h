/* SPDX-License-Identifier: GPL-2.0 */
/* The victim: the tracepoint mark_victim. */
#ifndef OOMTRACE_HOOKS_MARK_VICTIM_H
#define OOMTRACE_HOOKS_MARK_VICTIM_H

#include "sigkill.h"
#include "victim.h"

#define PID_LIMIT (4 << 20)

/*
 * A task that was killed for another reason (a limit of CPU time, a BPF program) is also marked, when it needs memory
 * to exit.  But the OOM killer holds its victim's alloc_lock from the SIGKILL until after the mark.  If the lock cannot
 * be read (PREEMPT_RT, a uniprocessor kernel), the SIGKILL is the only evidence.
 */
inline_always bool is_killed_by_oom(struct task_struct *task)
{
#if !defined(OOMTRACE_HEADERS) || (defined(CONFIG_SMP) && !defined(CONFIG_PREEMPT_RT))
	if (EXISTS(spinlock, rlock) && EXISTS(qspinlock, val))
		return READ(task, alloc_lock.rlock.raw_lock.val.counter) != 0;
#endif
	return true;
}

/* The mark passes only a tid.  The SIGKILL has shown the process, whose exit is then not another sender's. */
inline_always void note_victim_sigkill(u32 pid)
{
	u64 *started_ns = map_lookup(awaiting_mark, &pid);

	if (started_ns)
		map_update(sigkilled, &pid, started_ns, BPF_ANY);
}

SEC("raw_tp/mark_victim")
int on_mark_victim(struct bpf_raw_tracepoint_args *ctx)
{
	/*
	 * Before Linux commit 72ba14deb40a ("mm: update mark_victim tracepoints fields") (in v6.9, and in stable
	 * series) the argument is the pid: no kernel pointer is that small.
	 */
	u64 argument = ctx->args[0];
	struct incident_state *state = current_incident();
	struct task_struct *task = 0;
	u32 zero = 0, tid = current_tid();
	u64 size, exited_ns = 0;
	struct victim_event *event = map_lookup(victim_events, &zero);
	struct incident_event *incident = map_lookup(incidents, &zero);
	struct victim victim = {};
	bool is_kill, is_first = false, sent = true;
	u32 *victim_pid;

	if (!event || !incident)
		return 0;
	if (argument > PID_LIMIT)
		task = (struct task_struct *)argument;
	else if (state && state->marking && argument == (u32)READ(state->marking, pid))
		task = state->marking;
	else if (argument == tid)
		task = (struct task_struct *)bpf_get_current_task();

	/* A task that is already dying is also marked, so that it may use memory reserves, but not killed. */
	victim_pid = map_lookup(victim_by_tid, &tid);
	is_kill = victim_pid && (!task || (*victim_pid == (u32)READ(task, tgid) && is_killed_by_oom(task)));
	if (!is_kill && setting(kprobes))
		return 0;
	if (is_kill && !task)
		note_victim_sigkill(*victim_pid);
	map_delete(victim_by_tid, &tid);

	if (!setting(kprobes) || !state)
		state = tracepoint_incident(task);
	clear_victim(event);
	event->tid = argument;
	if (task)
		read_victim(event, task);
	if (!is_kill)
		event->flags |= VICTIM_MARKED;
	if (state) {
		is_first = !state->victim_pid;
		state->victim_pid = event->pid ? event->pid : event->tid;
		if (is_first)
			state->first_pid = state->victim_pid;
		state->victim_mm = task ? READ(task, mm) : 0;
		state->in_summary = 0;
		state->victim_logged = 0;
		if (is_first && (incident->flags & INCIDENT_OC))
			state->oom_group =
				task ? (struct mem_cgroup *)find_oom_group((u64)memcg_css(task), (u64)state->limit) : 0;
		if (state->oom_group) {
			incident->flags |= INCIDENT_GROUP;
			event->flags |= VICTIM_GROUP;
		}
		/* Most exact now: the kernel's own report, unless rate-limited, has just summed the statistics. */
		if (state->limit && !(incident->flags & INCIDENT_STAT) &&
		    read_memcg_stat(&incident->stat, state->limit))
			incident->flags |= INCIDENT_STAT;
	}
	stamp(&event->event, EVENT_VICTIM, state ? state->incident_ns : 0);
	if (!state)
		event->event.incident_ns = event->event.time_ns;
	victim.started_ns = event->started_ns;
	victim.incident_ns = event->event.incident_ns;
	victim.killed_ns = event->event.time_ns;
	if (event->pid && is_kill) {
		map_update(sigkilled, &event->pid, &event->started_ns, BPF_ANY);
		exited_ns = expect_exit(event->pid, &victim);
		map_delete(awaiting_mark, &event->pid);
	}
	if (exited_ns)
		map_delete(cmdlines, &event->pid); /* which on_exit has kept */

	size = clamp_to((u32)event->cgroup_len + event->exe_len + event->cmdline_len, sizeof(event->strings));
	if (state) {
		if (!state->incident_sent && !state->lost_before_victim)
			state->incident_sent = send_incident();
		sent = state->incident_sent;
	}
	sent = sent && try_to_send(event, __builtin_offsetof(struct victim_event, strings) + size);
	if (!sent)
		send_brief((u64)task, state != 0);
	if (state)
		state->victim_brief = !sent;
	if (exited_ns)
		send_exit(event->pid, &victim, exited_ns);
	return 0;
}

#endif
