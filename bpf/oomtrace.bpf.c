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
#include "event.h"
#include "incident.h"
#include "rss.h"
#include "sigkill.h"
#include "victim.h"

#define PID_LIMIT (4 << 20)
#define POINTS_UNKILLABLE (-__LONG_MAX__ - 1)

#ifndef OOMTRACE_BCC
char LICENSE[] SEC("license") = "GPL";
#endif

/* ---- the scan for a victim ---- */

SEC("kprobe/out_of_memory")
int on_out_of_memory(struct pt_regs *ctx)
{
	u32 zero = 0, tid = current_tid();
	struct scan *scan = map_lookup(scans, &zero);

	map_delete(killing, &tid); /* of an earlier SIGKILL: what is marked from now on is marked for another reason */
	if (!scan)
		return 0;
	scan->tid = tid;
	scan->scored = scan->candidates_len = 0;
	scan->scoring = scan->last = 0;
	return 0;
}

/* Readers of /proc/PID/oom_score call it, too: only the thread that scans counts. */
inline_always struct scan *current_scan(void)
{
	u32 zero = 0;
	struct scan *scan = map_lookup(scans, &zero);

	return scan && scan->tid == current_tid() ? scan : 0;
}

SEC("kprobe/oom_badness")
int on_oom_badness(struct pt_regs *ctx)
{
	struct scan *scan = current_scan();

	if (scan)
		scan->scoring = (struct task_struct *)ARG1(ctx);
	return 0;
}

inline_always void fill_candidate(struct candidate *candidate, struct task_struct *task, s64 points)
{
	struct mm_struct *mm = READ(task, mm);
	struct signal_struct *signal = READ(task, signal);
	struct rss rss;

	candidate->points = points;
	candidate->pid = READ(task, tgid);
	candidate->oom_score_adj = READ(signal, oom_score_adj);
	bpf_probe_read_kernel(candidate->comm, sizeof(candidate->comm), &task->comm);
	candidate->rss_pages = -1;
	if (mm) { /* a leader that is gone has none, though its threads live */
		read_rss(&rss, mm);
		candidate->rss_pages = rss.pages[MM_FILEPAGES] + rss.pages[MM_ANONPAGES] + rss.pages[MM_SHMEMPAGES];
	}
}

SEC("kretprobe/oom_badness")
int on_oom_badness_return(struct pt_regs *ctx)
{
	struct scan *scan = current_scan();
	struct task_struct *task;
	s64 points = RETURNED(ctx);
	s64 lowest = __LONG_MAX__;
	u32 place = 0, i;

	if (!scan)
		return 0;
	task = scan->scoring;
	/* Where the compiler split the function, both halves return. */
	if (!task || task == scan->last || points == POINTS_UNKILLABLE)
		return 0;
	scan->last = task;
	scan->scored++;
	if (scan->candidates_len < CANDIDATES_MAX) {
		place = scan->candidates_len++;
	} else {
		for (i = 0; i < CANDIDATES_MAX; i++) {
			if (scan->candidates[i].points < lowest) {
				lowest = scan->candidates[i].points;
				place = i;
			}
		}
		if (points <= lowest)
			return 0;
	}
	if (place < CANDIDATES_MAX)
		fill_candidate(&scan->candidates[place], task, points);
	return 0;
}

/* ---- the incident ---- */

SEC("kprobe/oom_kill_process")
int on_oom_kill_process(struct pt_regs *ctx)
{
	struct oom_control *oc = (struct oom_control *)ARG1(ctx);
	const char *message = (const char *)ARG2(ctx);
	struct state *state = open_incident();
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
	map_delete(killing, &tid);
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
	/* Without CONFIG_MEMCG there is no such struct, and no access to it that the verifier takes. */
	memcg = EXISTS(mem_cgroup, css) ? READ(oc, memcg) : 0;
	if (memcg) {
		u64 start = incident->message_len;

		incident->flags |= INCIDENT_MEMCG;
		state->limit = memcg;
		read_counters(&incident->limit, memcg);
		walk = map_lookup(walks, &zero);
		if (walk)
			incident->flags |= path_flags(
				append_cgroup(walk, incident->strings, start, &memcg->css, &incident->limit_len), 0,
				INCIDENT_LIMIT_CUT);
	}
	return 0;
}

SEC("kretprobe/oom_kill_process")
int on_oom_kill_process_return(struct pt_regs *ctx)
{
	struct state *state = current_state();
	struct event end = {};

	if (!state)
		return 0;
	/* Of one victim that was told in brief nothing more comes. */
	if (state->sent || state->oom_group) {
		stamp(&end, EVENT_END, state->incident_ns);
		send_small(&end, sizeof(end));
	}
	state->tid = 0;
	return 0;
}

/* The current thread is about to kill this process, which may exit at any moment from now on: before its mark, too. */
inline_always void condemn(struct task_struct *task)
{
	struct task_struct *leader = READ(task, group_leader);
	u32 tid = current_tid(), pid = READ(task, tgid);
	u64 started_ns = READ(leader, start_boottime);
	u32 *killed = map_lookup(killing, &tid);
	struct victim *known = map_lookup(victims, &pid);

	if (killed && *killed == pid)
		return;
	/*
	 * Killed once more, and not marked again: by a group kill that comes upon its first victim, or because the init
	 * of its PID namespace dies as well.
	 */
	if (known && known->started_ns == started_ns)
		return;
	map_delete(victims, &pid); /* an earlier process of this number */
	map_update(condemned, &pid, &started_ns, BPF_ANY);
	map_update(killing, &tid, &pid, BPF_ANY);
}

/*
 * A victim that is slow to die may be killed once more: by memory.oom.group of a cgroup above, or by its own group
 * kill, which comes upon it again where its first thread is gone before the others (the kernel keeps such processes in
 * a list of their own, and goes through that, too).  The kernel counts that, and logs the thread, but marks no task
 * twice. Once for the first victim of its own group kill user space knows already.
 */
inline_always bool is_killed_again(struct task_struct *task, struct state *state)
{
	struct task_struct *leader = READ(task, group_leader);
	u32 pid = READ(task, tgid);
	struct victim *known = map_lookup(victims, &pid);

	if (!is_of(known, READ(leader, start_boottime)) || !known->killed_ns)
		return false;
	if (known->incident_ns != state->incident_ns || pid != state->first_pid || state->first_again)
		return true;
	state->first_again = 1;
	return false;
}

inline_always void send_again(struct state *state, u32 tid)
{
	struct again_event event = { .tid = tid };

	state->again = 0;
	stamp(&event.event, EVENT_AGAIN, state->incident_ns);
	send_small(&event, sizeof(event));
}

SEC("kprobe/__oom_kill_process")
int on_do_oom_kill_process(struct pt_regs *ctx)
{
	struct task_struct *task = (struct task_struct *)ARG1(ctx);
	struct state *state = current_state();

	if (state)
		state->again = is_killed_again(task, state) ? READ(task, tgid) : 0;
	condemn(task);
	return 0;
}

SEC("kprobe/mark_oom_victim")
int on_mark_oom_victim(struct pt_regs *ctx)
{
	struct state *state = current_state();

	if (state)
		state->marking = (struct task_struct *)ARG1(ctx);
	return 0;
}

/* ---- the victim ---- */

/*
 * A task that was killed for another reason (a limit of CPU time, a BPF program) is marked when it needs memory to die.
 * But from its SIGKILL until after the mark the OOM killer holds the lock of its victim.  Where that cannot be seen
 * (PREEMPT_RT, a kernel for one CPU) the SIGKILL has to do.
 */
inline_always bool is_killed_now(struct task_struct *task)
{
#if !defined(OOMTRACE_HEADERS) || (defined(CONFIG_SMP) && !defined(CONFIG_PREEMPT_RT))
	if (EXISTS(spinlock, rlock) && EXISTS(qspinlock, val))
		return READ(task, alloc_lock.rlock.raw_lock.val.counter) != 0;
#endif
	return true;
}

/* The mark tells nothing but a thread's number: whose it is, and that its exit is the OOM killer's, the SIGKILL told.
 */
inline_always void note_killed(u32 pid)
{
	u64 *started_ns = map_lookup(condemned, &pid);

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
	struct state *state = current_state();
	struct task_struct *task = 0;
	u32 zero = 0, tid = current_tid();
	u64 size, exited_ns = 0;
	struct victim_event *event = map_lookup(victim_events, &zero);
	struct incident_event *incident = map_lookup(incidents, &zero);
	struct victim victim = {};
	bool real, first = false, whole = true;
	u32 *killed;

	if (!event || !incident)
		return 0;
	if (argument > PID_LIMIT)
		task = (struct task_struct *)argument;
	else if (state && state->marking && argument == (u32)READ(state->marking, pid))
		task = state->marking;
	else if (argument == tid)
		task = (struct task_struct *)bpf_get_current_task();

	/* A task that is dying already is marked, too, so that it may use reserves; nobody kills it. */
	killed = map_lookup(killing, &tid);
	real = killed && (!task || (*killed == (u32)READ(task, tgid) && is_killed_now(task)));
	if (!real && setting(kprobes))
		return 0;
	if (real && !task)
		note_killed(*killed);
	map_delete(killing, &tid);

	if (!setting(kprobes) || !state)
		state = tracepoint_state(task);
	clear_victim(event);
	event->tid = argument;
	if (task)
		read_victim(event, task);
	if (!real)
		event->flags |= VICTIM_MARKED;
	if (state) {
		first = !state->victim_pid;
		state->victim_pid = event->pid ? event->pid : event->tid;
		if (first)
			state->first_pid = state->victim_pid;
		state->victim_mm = task ? READ(task, mm) : 0;
		state->summary = 0;
		state->reported = 0;
		if (first && (incident->flags & INCIDENT_OC))
			state->oom_group = task ? find_oom_group(memcg_css(task), state->limit) : 0;
		if (state->oom_group) {
			incident->flags |= INCIDENT_GROUP;
			event->flags |= VICTIM_GROUP;
		}
		/* Freshest now: the kernel's own report, if it is not rate-limited, has just summed up. */
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
	if (event->pid && real) {
		map_update(sigkilled, &event->pid, &event->started_ns, BPF_ANY);
		exited_ns = expect_exit(event->pid, &victim);
		map_delete(condemned, &event->pid);
	}
	if (exited_ns)
		map_delete(cmdlines, &event->pid); /* on_exit has left it for this */

	size = at_most((u32)event->cgroup_len + event->exe_len + event->cmdline_len, sizeof(event->strings));
	if (state) {
		if (!state->sent && !state->cut)
			state->sent = send_incident(state, incident);
		whole = state->sent;
	}
	whole = whole && try_to_send(event, __builtin_offsetof(struct victim_event, strings) + size);
	if (!whole)
		send_brief(event, task, state, incident);
	if (state)
		state->brief = !whole;
	if (exited_ns)
		send_exit(event->pid, &victim, exited_ns);
	return 0;
}

/* SIGKILL from the OOM path: the victim, before it is marked, and after it those who share its memory. */
inline_always void handle_oom_sigkill(struct task_struct *task)
{
	struct sharer_event event = {};
	struct task_struct *leader = READ(task, group_leader);
	struct state *state = current_state();
	u64 started_ns = READ(leader, start_boottime);
	u32 pid = READ(task, tgid);

	if (state && state->victim_mm && state->victim_pid != pid && READ(task, mm) == state->victim_mm) {
		map_update(sigkilled, &pid, &started_ns, BPF_ANY);
		if (state->brief)
			return;
		event.victim_pid = state->victim_pid;
		event.pid = pid;
		bpf_probe_read_kernel(event.comm, sizeof(event.comm), &task->comm);
		stamp(&event.event, EVENT_SHARER, state->incident_ns);
		send(&event, sizeof(event));
		return;
	}
	if (state && setting(kprobes) && state->again == pid)
		send_again(state, READ(task, pid));
	else if (state && !setting(kprobes) && is_killed_again(task, state))
		state->again = READ(task, pid); /* if the kernel log says so, too */
	condemn(task); /* with kprobes, too: one is skipped where it interrupts another BPF program */
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

/* ---- tracepoint mode: the kernel log's words, as they are written ---- */

enum log_line {
	LOG_OTHER,
	LOG_INVOKED, /* "COMM invoked oom-killer: gfp_mask=..." */
	LOG_SUMMARY, /* "oom-kill:constraint=..." */
};

inline_always enum log_line classify(const char *text)
{
	char start[COMM_LEN + 16] = {};
	const char summary[] = "oom-kill:", invoked[] = " invoked oom-k";
	int i, j;

	bpf_probe_read_kernel_str(start, sizeof(start), text);
	for (i = 0; i < (int)sizeof(summary) - 1; i++)
		if (start[i] != summary[i])
			break;
	if (i == sizeof(summary) - 1)
		return LOG_SUMMARY;
	for (i = 0; i < COMM_LEN; i++) {
		for (j = 0; j < (int)sizeof(invoked) - 1; j++)
			if (start[i + j] != invoked[j])
				break;
		if (j == sizeof(invoked) - 1)
			return LOG_INVOKED;
	}
	return LOG_OTHER;
}

SEC("raw_tp/console")
int on_console(struct bpf_raw_tracepoint_args *ctx)
{
	const char *text = (const char *)ctx->args[0];
	enum log_line line = classify(text);
	struct state *state = current_state();
	struct log_event *log;
	u32 zero = 0;
	u64 len;
	bool sent;

	if (state && state->again && line == LOG_OTHER) {
		send_again(state, state->again);
		return 0;
	}
	if (!state) {
		if (line == LOG_OTHER)
			return 0;
		state = open_incident();
	} else if (state->victim_pid) {
		if (line != LOG_OTHER)
			state = open_incident();
	} else if (state->summary) {
		line = LOG_OTHER; /* a piece of the summary: the names in it may read like anything */
	} else if (line == LOG_INVOKED) {
		state = open_incident(); /* the last one found nobody to kill */
	}
	if (!state)
		return 0;
	log = map_lookup(log_events, &zero);
	if (!log)
		return 0;
	if (line == LOG_SUMMARY)
		state->summary = 1; /* printed piece by piece (pr_cont), the last one before the victim is marked */
	/* Of the other lines only the one right after a mark tells something: "MESSAGE: Killed process". */
	if (line == LOG_OTHER && (state->victim_pid ? state->reported : !state->summary))
		return 0;
	len = at_most(ctx->args[1], LOG_LEN); /* not ended by a NUL */
	if (bpf_probe_read_kernel(log->text, len, text))
		return 0;
	log->len = len;
	stamp(&log->event, EVENT_LOG, state->incident_ns);
	sent = !(state->victim_pid && state->brief) &&
	       try_to_send(log, __builtin_offsetof(struct log_event, text) + at_most(len, LOG_LEN));
	if (!state->victim_pid) {
		state->cut |= !sent;
		return 0;
	}
	if (!sent)
		send_reported(state, log);
	state->reported = 1;
	return 0;
}

/* ---- before and after ---- */

inline_always void remember_cmdline(u32 pid, struct mm_struct *mm)
{
	u32 zero = 0;
	struct cmdline *cmdline, *empty = map_lookup(no_cmdline, &zero);
	u64 arg_start = READ(mm, arg_start), len;

	if (!empty || map_update(cmdlines, &pid, empty, BPF_ANY))
		return;
	cmdline = map_lookup(cmdlines, &pid);
	if (!cmdline)
		return;
	len = at_most(READ(mm, arg_end) - arg_start, CMDLINE_LEN);
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

	remember_cmdline(pid, mm);
	return 0;
}

/* Once more, for a task that executes on a CPU where another one was preempted in on_exec, which is then skipped. */
SEC("raw_tp/sched_process_exec")
int on_exec_again(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct mm_struct *mm = READ(task, mm);
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct cmdline *known = map_lookup(cmdlines, &pid);

	if (!known || known->arg_start != READ(mm, arg_start))
		remember_cmdline(pid, mm);
	return 0;
}

/* The kernel fires it under a lock, so one element is enough. */
SEC("raw_tp/cgroup_mkdir")
int on_cgroup_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	struct cgroup *cgroup = (struct cgroup *)ctx->args[0];
	struct cgroup_event *event;
	u32 zero = 0;
	long copied;

	if (!EXISTS_ENUM(cgroup_subsys_id, memory_cgrp_id) ||
	    !READ_AT(void *, (char *)&cgroup->subsys + ENUM(cgroup_subsys_id, memory_cgrp_id) * sizeof(void *)))
		return 0;
	event = map_lookup(cgroup_events, &zero);
	if (!event)
		return 0;
	copied = bpf_probe_read_kernel_str(event->path, PATH_LEN, (const void *)ctx->args[1]);
	if (copied <= 0)
		return 0;
	event->len = copied;
	stamp(&event->event, EVENT_CGROUP, 0);
	if (ringbuf_output(cgroups, event, __builtin_offsetof(struct cgroup_event, path) + at_most(copied, PATH_LEN),
			   0))
		count(COUNTER_UNSEEN_CGROUPS);
	return 0;
}

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
	struct victim *victim = map_lookup(victims, &pid), known;
	bool is_condemned = is_of(map_lookup(condemned, &pid), gone.started_ns);

#ifndef OOMTRACE_HEADERS /* as bcc compiles it from headers the verifier of 6.1 gives up (EFAULT) */
	if (setting(sigkill) != SIGKILL_OFF)
		handle_killed(place, task, pid, gone.started_ns, is_condemned);
#endif
	if (victim || !is_condemned) /* else mark_victim still asks for it */
		map_delete(cmdlines, &pid);
	if (!victim) {
		if (!is_condemned)
			return;
		if (!map_update(victims, &pid, &gone, BPF_NOEXIST))
			return; /* for mark_victim to find */
		victim = map_lookup(victims, &pid);
	}
	if (!is_of(victim, gone.started_ns) || victim->exited_ns)
		return;
	known = *victim;
	if (map_delete(victims, &pid))
		return;
	map_delete(condemned, &pid);
	send_exit(pid, &known, gone.exited_ns);
}

SEC("raw_tp/sched_process_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];

	if ((u32)READ(task, tgid) != bpf_get_current_pid_tgid() >> 32)
		count(COUNTER_MISREAD);
	if (is_last(ctx))
		handle_exit(task, PLACE_EXIT);
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
		handle_exit(task, PLACE_SIGNAL);
	return 0;
}

#define FORGET(map, pid, started_ns)                                                                                   \
	({                                                                                                             \
		bool is_its_ = is_of(map_lookup(map, pid), started_ns);                                                \
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

	map_delete(killing, &tid);
	if (tid != (u32)READ(task, tgid))
		return 0;
	FORGET(victims, &tid, started_ns);
	FORGET(sigkilled, &tid, started_ns);
	if (FORGET(condemned, &tid, started_ns)) /* killed, and never marked: on_exit has left it for the mark */
		map_delete(cmdlines, &tid);
	return 0;
}
