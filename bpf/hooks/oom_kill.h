/* SPDX-License-Identifier: GPL-2.0 */
/* The incident and its victims: oom_kill_process(), __oom_kill_process(), mark_oom_victim(). */
#ifndef OOMTRACE_HOOKS_OOM_KILL_H
#define OOMTRACE_HOOKS_OOM_KILL_H

#include "incident.h"
#include "victim.h"

SEC("kprobe/oom_kill_process")
int on_oom_kill_process(struct pt_regs *ctx)
{
	struct oom_control *oc = (struct oom_control *)ARG1(ctx);
	const char *message = (const char *)ARG2(ctx);
	struct incident_state *state = open_incident();
	struct incident_event *incident;
	struct scan *scan;
	struct walk *walk;
	struct mem_cgroup *memcg;
	struct task_struct *chosen;
	u32 zero = 0, tid = current_tid();
	long copied;

	if (!state)
		return 0;
	incident = map_lookup(incidents, &zero);
	if (!incident)
		return 0;
	map_delete(victim_by_tid, &tid);
	incident->flags = INCIDENT_OC;
	incident->total_pages = READ(oc, totalpages);
	incident->gfp_mask = READ_AT(u32, &oc->gfp_mask);
	incident->order = READ_AT(int, &oc->order);
	incident->constraint = READ_AT(u32, &oc->constraint);
	incident->chosen_points = READ(oc, chosen_points);
	chosen = READ(oc, chosen);
	incident->chosen_pid = READ(chosen, tgid);
	scan = current_scan();
	if (scan) {
		incident->scored = scan->scored;
		incident->candidates_len = scan->candidates_len;
		__builtin_memcpy(incident->candidates, scan->candidates, sizeof(incident->candidates));
		scan->tid = 0;
	}
	copied = bpf_probe_read_kernel_str(incident->strings, MESSAGE_LEN, message);
	if (copied > 0 && copied <= MESSAGE_LEN)
		incident->message_len = copied;
	/* Without CONFIG_MEMCG the struct does not exist, and the verifier rejects accesses to it. */
	memcg = EXISTS(mem_cgroup, css) ? READ(oc, memcg) : 0;
	if (memcg) {
		u64 start = incident->message_len;

		incident->flags |= INCIDENT_MEMCG;
		state->limit = memcg;
		read_counters(&incident->limit, memcg);
		walk = map_lookup(path_walks, &zero);
		if (walk)
			incident->flags |= path_flags(
				append_cgroup(walk, incident->strings, start, &memcg->css, &incident->limit_cgroup_len),
				0, INCIDENT_LIMIT_TRUNCATED);
	}
	return 0;
}

SEC("kretprobe/oom_kill_process")
int on_oom_kill_process_return(struct pt_regs *ctx)
{
	struct incident_state *state = current_incident();
	struct event end = {};

	if (!state)
		return 0;
	/* No further events follow a single victim that was sent in brief. */
	if (state->incident_sent || state->oom_group) {
		stamp(&end, EVENT_END, state->incident_ns);
		send_small(&end, sizeof(end));
	}
	state->tid = 0;
	return 0;
}

/* The current thread is about to kill this process, which may from now on exit at any time, even before its mark. */
inline_always void expect_mark(struct task_struct *task)
{
	struct task_struct *leader = READ(task, group_leader);
	u32 tid = current_tid(), pid = READ(task, tgid);
	u64 started_ns = READ(leader, start_boottime);
	u32 *victim_pid = map_lookup(victim_by_tid, &tid);
	struct victim *victim = map_lookup(awaiting_exit, &pid);

	if (victim_pid && *victim_pid == pid)
		return;
	/*
	 * Killed again, without a second mark: by a group kill, which includes its first victim, or because the init of
	 * its PID namespace exits, too.
	 */
	if (victim && victim->started_ns == started_ns)
		return;
	map_delete(awaiting_exit, &pid); /* of an earlier process with this pid */
	map_update(awaiting_mark, &pid, &started_ns, BPF_ANY);
	map_update(victim_by_tid, &tid, &pid, BPF_ANY);
}

/*
 * A victim that is slow to exit may be killed again: by memory.oom.group of an ancestor cgroup, or by its own group
 * kill, which finds a process a second time if its leader has exited before its other threads (the kernel has such
 * processes in a list of their own, which it also iterates).  The kernel counts the kill again and logs the thread, but
 * marks no task twice.  User space expects one such kill of the first victim of a group kill, so it is not sent.
 */
inline_always bool is_killed_again(struct task_struct *task, struct incident_state *state)
{
	struct task_struct *leader = READ(task, group_leader);
	u32 pid = READ(task, tgid);
	struct victim *victim = map_lookup(awaiting_exit, &pid);

	if (!is_entry_of(victim, READ(leader, start_boottime)) || !victim->killed_ns)
		return false;
	if (victim->incident_ns != state->incident_ns || pid != state->first_pid || state->first_killed_again)
		return true;
	state->first_killed_again = 1;
	return false;
}

inline_always void send_killed_again(struct incident_state *state, u32 tid)
{
	struct killed_again_event event = { .tid = tid };

	state->killed_again = 0;
	stamp(&event.event, EVENT_KILLED_AGAIN, state->incident_ns);
	send_small(&event, sizeof(event));
}

SEC("kprobe/__oom_kill_process")
int on_do_oom_kill_process(struct pt_regs *ctx)
{
	struct task_struct *task = (struct task_struct *)ARG1(ctx);
	struct incident_state *state = current_incident();

	if (state)
		state->killed_again = is_killed_again(task, state) ? READ(task, tgid) : 0;
	expect_mark(task);
	return 0;
}

SEC("kprobe/mark_oom_victim")
int on_mark_oom_victim(struct pt_regs *ctx)
{
	struct incident_state *state = current_incident();

	if (state)
		state->marking = (struct task_struct *)ARG1(ctx);
	return 0;
}

#endif
