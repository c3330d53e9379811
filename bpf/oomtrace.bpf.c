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
 *           mark_victim      EVENT_VICTIM, after the first one EVENT_INCIDENT; the tracepoint fires once a victim, the
 *                            function may run twice
 *     return                 EVENT_END
 *
 * The kernel skips kprobes while a BPF map is worked on from user space on the same CPU (bpf_prog_active), and since
 * about v7.0, where tracepoints can be preempted, a raw tracepoint's program while it is interrupted on that CPU.  So a
 * victim depends on no single hook: mark_victim sends all that is known, SIGKILL is seen in two places, and an end that
 * is missing is concluded by user space.
 *
 * Without kprobes (settings.kprobes is 0) the incident begins with the kernel log's first line about it, and a victim
 * is done with "Killed process"; printk:console shows them in the same context.
 */
#include "engine.h"
#include "event.h"
#include "memcg.h"
#include "path.h"
#include "rss.h"

/* Named apart from the kernel's own, which bcc may see in its headers. */
#define SIGNAL_KILL 9
#define SIGNAL_FROM_KERNEL 1 /* siginfo pointer SEND_SIG_PRIV */
#define PID_LIMIT (4 << 20)
#define PID_OF_GROUP 1 /* PIDTYPE_TGID */
#define POINTS_UNKILLABLE (-__LONG_MAX__ - 1)
#define MEMCG_DEPTH_MAX 32
#define ANCESTORS_MAX 8
#define LOG_STALE_NS 5000000000ULL

struct cmdline {
	u64 arg_start; /* tells one exec from the next: the process id alone may be reused */
	u32 len;
	char bytes[CMDLINE_LEN];
};

struct scan {
	u32 tid;
	u32 scored;
	u32 candidates_len;
	u32 pad;
	struct task_struct *scoring;
	struct task_struct *last;
	struct candidate candidates[CANDIDATES_MAX];
};

struct state {
	u32 tid; /* of the trigger while an incident is open, else 0 */
	u32 victim_pid;
	u64 incident_ns;
	struct task_struct *marking;
	struct mm_struct *victim_mm;
	struct mem_cgroup *limit; /* the memcg whose limit was hit */
	struct mem_cgroup *oom_group;
	u32 summary;  /* tracepoint mode: what is logged now belongs to the "oom-kill:" line */
	u32 reported; /* tracepoint mode: the last victim's line was seen */
};

struct victim {
	u64 incident_ns;
	u64 killed_ns;
	u64 exited_ns; /* not 0: it was gone before it was marked, and the others are not known yet */
};

enum counter {
	COUNTER_LOST,	 /* events that found the ring buffer full */
	COUNTER_MISREAD, /* the current task is not where the offsets say: nothing that is read can be believed */
	COUNTERS,
};

DEFINE_RING(events, 1 << 20);
DEFINE_MAP_FLAGS(counters, BPF_MAP_TYPE_ARRAY, u32, u64, COUNTERS, BPF_F_MMAPABLE);
DEFINE_MAP(states, BPF_MAP_TYPE_ARRAY, u32, struct state, 1);
DEFINE_MAP(scans, BPF_MAP_TYPE_ARRAY, u32, struct scan, 1);
DEFINE_MAP(incidents, BPF_MAP_TYPE_ARRAY, u32, struct incident_event, 1);
DEFINE_MAP(victim_events, BPF_MAP_TYPE_ARRAY, u32, struct victim_event, 1);
DEFINE_MAP(level_events, BPF_MAP_TYPE_ARRAY, u32, struct levels_event, 1);
DEFINE_MAP(log_events, BPF_MAP_TYPE_ARRAY, u32, struct log_event, 1);
DEFINE_MAP(killing, BPF_MAP_TYPE_LRU_HASH, u32, u32, 1024);
DEFINE_MAP(condemned, BPF_MAP_TYPE_LRU_HASH, u32, u32, 1024);
DEFINE_MAP(victims, BPF_MAP_TYPE_LRU_HASH, u32, struct victim, 4096);
DEFINE_MAP(cmdlines, BPF_MAP_TYPE_LRU_HASH, u32, struct cmdline, 4096);
DEFINE_MAP(no_cmdline, BPF_MAP_TYPE_ARRAY, u32, struct cmdline, 1);

#ifndef OOMTRACE_BCC
char LICENSE[] SEC("license") = "GPL";
#endif

inline_always u32 current_tid(void)
{
	return (u32)bpf_get_current_pid_tgid();
}

/* The open incident of the current thread; 0 when it has none. */
inline_always struct state *current_state(void)
{
	u32 zero = 0;
	struct state *state = map_lookup(states, &zero);

	return state && state->tid == current_tid() ? state : 0;
}

inline_always void count(u32 counter)
{
	u64 *value = map_lookup(counters, &counter);

	if (value)
		__sync_fetch_and_add(value, 1);
}

inline_always void send(void *event, u64 size)
{
	if (ringbuf_output(events, event, size))
		count(COUNTER_LOST);
}

inline_always void stamp(struct event *event, u32 type, u64 incident_ns)
{
	event->type = type;
	event->tid = current_tid();
	event->time_ns = bpf_ktime_get_boot_ns();
	event->incident_ns = incident_ns;
}

/* Start the incident of the current thread; what is still open has lost its end. */
inline_always struct state *open_incident(void)
{
	u32 zero = 0;
	struct state *state = map_lookup(states, &zero);
	struct incident_event *incident = map_lookup(incidents, &zero);
	u64 pid_tgid = bpf_get_current_pid_tgid();

	if (!state || !incident)
		return 0;
	state->tid = (u32)pid_tgid;
	state->incident_ns = bpf_ktime_get_boot_ns();
	state->victim_pid = 0;
	state->victim_mm = 0;
	state->marking = 0;
	state->limit = state->oom_group = 0;
	state->summary = state->reported = 0;

	incident->total_pages = incident->gfp_mask = 0;
	incident->chosen_points = 0;
	incident->order = incident->constraint = 0;
	incident->chosen_pid = incident->scored = incident->candidates_len = 0;
	incident->flags = 0;
	incident->message_len = incident->limit_len = incident->trigger_len = 0;
	incident->trigger_pid = pid_tgid >> 32;
	incident->trigger_uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(incident->trigger_comm, sizeof(incident->trigger_comm));
	return state;
}

/* The trigger's cgroup goes behind the other strings, so it is the last thing to be filled in. */
inline_always void send_incident(struct state *state, struct incident_event *incident)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct cgroup_subsys_state *css = memcg_css(task);
	u64 start = (u64)incident->message_len + incident->limit_len, size;

	if (css) {
		incident->flags |= INCIDENT_TRIGGER_CGROUP;
		if (!append_cgroup(incident->strings, start, css, &incident->trigger_len))
			incident->flags |= INCIDENT_TRIGGER_CUT;
	}
	stamp(&incident->event, EVENT_INCIDENT, state->incident_ns);
	size = at_most(start + incident->trigger_len, sizeof(incident->strings));
	send(incident, __builtin_offsetof(struct incident_event, strings) + size);
}

/* ---- the scan for a victim ---- */

SEC("kprobe/out_of_memory")
int on_out_of_memory(struct pt_regs *ctx)
{
	u32 zero = 0;
	struct scan *scan = map_lookup(scans, &zero);

	if (!scan)
		return 0;
	scan->tid = current_tid();
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
	memcg = READ(oc, memcg);
	if (memcg) {
		u64 start = incident->message_len;

		incident->flags |= INCIDENT_MEMCG;
		state->limit = memcg;
		read_counters(&incident->limit, memcg);
		if (!append_cgroup(incident->strings, start, &memcg->css, &incident->limit_len))
			incident->flags |= INCIDENT_LIMIT_CUT;
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
	stamp(&end, EVENT_END, state->incident_ns);
	send(&end, sizeof(end));
	state->tid = 0;
	return 0;
}

/* The current thread is about to kill this process, which may exit at any moment from now on: before its mark, too. */
inline_always void condemn(u32 pid)
{
	u32 tid = current_tid();
	u32 *killed = map_lookup(killing, &tid);

	if (killed && *killed == pid)
		return;
	map_delete(victims, &pid); /* an earlier process of this number */
	map_update(condemned, &pid, &tid, BPF_ANY);
	map_update(killing, &tid, &pid, BPF_ANY);
}

SEC("kprobe/__oom_kill_process")
int on_do_oom_kill_process(struct pt_regs *ctx)
{
	struct task_struct *victim = (struct task_struct *)ARG1(ctx);

	condemn(READ(victim, tgid));
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

inline_always void read_memory(struct victim_event *event, struct mm_struct *mm)
{
	struct rss rss;

	read_rss(&rss, mm);
	event->anon_rss_pages = rss.pages[MM_ANONPAGES];
	event->file_rss_pages = rss.pages[MM_FILEPAGES];
	event->shmem_rss_pages = rss.pages[MM_SHMEMPAGES];
	event->swap_pages = rss.pages[MM_SWAPENTS];
	event->total_vm_pages = READ(mm, total_vm);
	event->peak_rss_pages = READ(mm, hiwater_rss);
	event->page_tables_bytes = READ(mm, pgtables_bytes.counter);
	event->mm_users = READ(mm, mm_users.counter);
	if (rss.exact)
		event->flags |= VICTIM_RSS_EXACT;
}

inline_always void read_namespace(struct victim_event *event, struct signal_struct *signal)
{
	struct pid *pid = READ_AT(struct pid *, (char *)&signal->pids + PID_OF_GROUP * sizeof(void *));
	u32 level = READ(pid, level);

	event->namespace_level = level;
	event->namespace_pid = READ_AT(int, (char *)&pid->numbers + level * SIZE(upid) + OFFSET(upid, nr));
}

/*
 * The victim's own command line.  Its memory can be read only if it is the current task; others were seen at exec, or
 * at start by user space.  A process that forked without exec has its ancestor's, known by the same place in memory.
 */
inline_always u32 append_cmdline(struct victim_event *event, struct task_struct *task, struct mm_struct *mm, u64 start)
{
	u64 arg_start = READ(mm, arg_start), arg_end = READ(mm, arg_end);
	struct cmdline *cmdline = 0;
	u64 len = at_most(arg_end - arg_start, CMDLINE_LEN);
	u32 i;

	start = at_most(start, 2 * PATH_LEN);
	if (arg_end - arg_start > CMDLINE_LEN)
		event->flags |= VICTIM_CMDLINE_CUT;
	if (task == (struct task_struct *)bpf_get_current_task() &&
	    !bpf_probe_read_user(event->strings + start, len, (const void *)arg_start)) {
		event->flags |= VICTIM_CMDLINE;
		return len;
	}
	for (i = 0; i < ANCESTORS_MAX; i++) {
		u32 pid = READ(task, tgid);

		cmdline = map_lookup(cmdlines, &pid);
		if (cmdline && cmdline->arg_start == arg_start)
			break;
		cmdline = 0;
		task = READ(task, real_parent);
		if (!task)
			break;
	}
	if (!cmdline || !arg_start)
		return 0;
	len = at_most(cmdline->len, CMDLINE_LEN);
	if (bpf_probe_read_kernel(event->strings + start, len, cmdline->bytes))
		return 0;
	event->flags |= VICTIM_CMDLINE;
	if (i)
		event->flags |= VICTIM_FORKED;
	return len;
}

inline_always void read_strings(struct victim_event *event, struct task_struct *task, struct mm_struct *mm)
{
	struct cgroup_subsys_state *css = memcg_css(task);
	u64 start = 0;

	if (css) {
		event->flags |= VICTIM_CGROUP;
		if (!append_cgroup(event->strings, start, css, &event->cgroup_len))
			event->flags |= VICTIM_CGROUP_CUT;
		start = event->cgroup_len;
	}
	if (!mm)
		return;
#ifndef OOMTRACE_HEADERS
	event->flags |= VICTIM_EXE;
	if (!append_exe(event->strings, start, mm, &event->exe_len))
		event->flags |= VICTIM_EXE_CUT;
	start += event->exe_len;
#endif
	event->cmdline_len = append_cmdline(event, task, mm, start);
}

inline_always void read_victim(struct victim_event *event, struct task_struct *task)
{
	struct task_struct *leader = READ(task, group_leader), *parent = READ(task, real_parent);
	struct signal_struct *signal = READ(task, signal);
	struct mm_struct *mm = READ(task, mm);
	struct cred *cred = (struct cred *)READ(task, real_cred);

	event->flags = VICTIM_TASK;
	event->pid = READ(task, tgid);
	event->tid = READ(task, pid);
	event->ppid = READ(parent, tgid);
	event->uid = READ(cred, uid.val);
	event->oom_score_adj = READ(signal, oom_score_adj);
	event->threads = READ(signal, nr_threads);
	event->started_ns = READ(leader, start_boottime);
	bpf_probe_read_kernel(event->comm, sizeof(event->comm), &task->comm);
	read_namespace(event, signal);
	if (mm)
		read_memory(event, mm);
	read_strings(event, task, mm);
}

inline_always void clear_victim(struct victim_event *event)
{
	__builtin_memset(event, 0, __builtin_offsetof(struct victim_event, strings));
	event->anon_rss_pages = event->file_rss_pages = event->shmem_rss_pages = event->swap_pages = -1;
	event->total_vm_pages = event->peak_rss_pages = event->page_tables_bytes = -1;
}

/* The highest cgroup from css up to limit that is killed as a whole, as mem_cgroup_get_oom_group() finds it; v2 only.
 */
inline_always struct mem_cgroup *find_oom_group(struct cgroup_subsys_state *css, struct mem_cgroup *limit)
{
	struct mem_cgroup *group = 0;
	int i;

	for (i = 0; i < MEMCG_DEPTH_MAX && css; i++) {
		struct mem_cgroup *memcg = (struct mem_cgroup *)css;

		if (READ(memcg, oom_group))
			group = memcg;
		if (memcg == limit)
			break;
		css = READ(css, parent);
	}
	return group;
}

/* Without struct oom_control: the figures of every cgroup whose limit it may have been. */
inline_always void send_levels(struct state *state, struct cgroup_subsys_state *css)
{
	u32 zero = 0, i;
	struct levels_event *levels = map_lookup(level_events, &zero);

	if (!levels)
		return;
	levels->levels_len = 0;
	for (i = 0; i < LEVELS_MAX; i++) {
		struct cgroup_subsys_state *parent = READ(css, parent);

		if (!parent) /* the root has no limit */
			break;
		read_counters(&levels->levels[i], (struct mem_cgroup *)css);
		levels->levels_len = i + 1;
		css = parent;
	}
	stamp(&levels->event, EVENT_LEVELS, state->incident_ns);
	send(levels, __builtin_offsetof(struct levels_event, levels) +
			     at_most(levels->levels_len, LEVELS_MAX) * sizeof(levels->levels[0]));
}

/* In tracepoint mode one victim after another tells what the incident is. */
inline_always struct state *tracepoint_state(struct task_struct *task)
{
	struct state *state = current_state();
	struct cgroup_subsys_state *css = task ? memcg_css(task) : 0;
	struct mem_cgroup *group = find_oom_group(css, 0);
	bool next;

	/* After a victim only a member of the same group kill belongs to the same incident. */
	next = state && state->victim_pid && (!group || state->oom_group != group);
	if (!state || next || bpf_ktime_get_boot_ns() - state->incident_ns > LOG_STALE_NS) {
		state = open_incident();
		if (!state)
			return 0;
	}
	state->oom_group = group;
	if (css && !state->victim_pid)
		send_levels(state, css);
	return state;
}

inline_always void send_exit(u32 pid, struct victim *victim, u64 exited_ns)
{
	struct exit_event event = {};

	stamp(&event.event, EVENT_EXIT, victim->incident_ns);
	event.event.time_ns = exited_ns;
	event.killed_ns = victim->killed_ns;
	event.pid = pid;
	send(&event, sizeof(event));
}

/*
 * The mark and the exit of a victim meet in the map, whoever comes first: SIGKILL is sent before the mark, and since
 * Linux commit "exit: move and extend sched_process_exit() tracepoint" (in v6.16) nothing that the killer holds keeps
 * the victim from getting there.  Returns when it exited, if it has.
 */
inline_always u64 expect_exit(u32 pid, u64 started_ns, struct victim *victim)
{
	struct victim *early;
	u64 exited_ns;

	if (!map_update(victims, &pid, victim, BPF_NOEXIST))
		return 0;
	early = map_lookup(victims, &pid);
	exited_ns = early ? early->exited_ns : 0;
	if (exited_ns > started_ns) {
		map_delete(victims, &pid);
		return exited_ns;
	}
	map_update(victims, &pid, victim, BPF_ANY);
	return 0;
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
	bool real, first = false;
	u32 *killed;

	if (!event || !incident)
		return 0;
	if (argument > PID_LIMIT)
		task = (struct task_struct *)argument;
	else if (state && state->marking)
		task = state->marking;
	else if (argument == tid)
		task = (struct task_struct *)bpf_get_current_task();

	/* A task that is dying already is marked, too, so that it may use reserves; nobody kills it. */
	killed = map_lookup(killing, &tid);
	real = killed && (!task || *killed == (u32)READ(task, tgid));
	if (!real && setting(kprobes))
		return 0;
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
	victim.incident_ns = event->event.incident_ns;
	victim.killed_ns = event->event.time_ns;
	if (event->pid && real)
		exited_ns = expect_exit(event->pid, event->started_ns, &victim);

	size = at_most((u32)event->cgroup_len + event->exe_len + event->cmdline_len, sizeof(event->strings));
	send(event, __builtin_offsetof(struct victim_event, strings) + size);
	if (state && first)
		send_incident(state, incident);
	if (exited_ns)
		send_exit(event->pid, &victim, exited_ns);
	return 0;
}

/* SIGKILL from the OOM path: the victim, before it is marked, and after it those who share its memory. */
SEC("raw_tp/signal_generate")
int on_signal_generate(struct bpf_raw_tracepoint_args *ctx)
{
	struct sharer_event event = {};
	struct task_struct *task;
	struct state *state;
	u32 pid;

	if (ctx->args[0] != SIGNAL_KILL || ctx->args[1] != SIGNAL_FROM_KERNEL)
		return 0;
	task = (struct task_struct *)ctx->args[2];
	pid = READ(task, tgid);
	state = current_state();
	if (state && state->victim_mm && state->victim_pid != pid && READ(task, mm) == state->victim_mm) {
		event.victim_pid = state->victim_pid;
		event.pid = pid;
		bpf_probe_read_kernel(event.comm, sizeof(event.comm), &task->comm);
		stamp(&event.event, EVENT_SHARER, state->incident_ns);
		send(&event, sizeof(event));
		return 0;
	}
	condemn(pid);
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
	send(log, __builtin_offsetof(struct log_event, text) + at_most(len, LOG_LEN));
	if (state->victim_pid)
		state->reported = 1;
	return 0;
}

/* ---- before and after ---- */

SEC("raw_tp/sched_process_exec")
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct mm_struct *mm = READ(task, mm);
	u32 zero = 0, pid = bpf_get_current_pid_tgid() >> 32;
	struct cmdline *cmdline, *empty = map_lookup(no_cmdline, &zero);
	u64 arg_start = READ(mm, arg_start), len;

	if (!empty || map_update(cmdlines, &pid, empty, BPF_ANY))
		return 0;
	cmdline = map_lookup(cmdlines, &pid);
	if (!cmdline)
		return 0;
	len = at_most(READ(mm, arg_end) - arg_start, CMDLINE_LEN);
	if (bpf_probe_read_user(cmdline->bytes, len, (const void *)arg_start))
		return 0;
	cmdline->len = len;
	cmdline->arg_start = arg_start;
	return 0;
}

inline_always int handle_exit(struct task_struct *task)
{
	struct signal_struct *signal = READ(task, signal);
	u32 pid = READ(task, tgid);
	struct victim gone = {};
	struct victim *victim;

	if (pid != bpf_get_current_pid_tgid() >> 32)
		count(COUNTER_MISREAD);
	if (READ(signal, live.counter) > 0)
		return 0;
	map_delete(cmdlines, &pid);
	gone.exited_ns = bpf_ktime_get_boot_ns();
	victim = map_lookup(victims, &pid);
	if (!victim) {
		if (!map_lookup(condemned, &pid))
			return 0;
		if (!map_update(victims, &pid, &gone, BPF_NOEXIST))
			return 0; /* for mark_victim to find */
		victim = map_lookup(victims, &pid);
	}
	if (!victim || victim->exited_ns)
		return 0;
	send_exit(pid, victim, gone.exited_ns);
	map_delete(victims, &pid);
	map_delete(condemned, &pid);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	return handle_exit((struct task_struct *)ctx->args[0]);
}

/* Once more, for the task that exits on a CPU where another one was interrupted in on_exit, which is then skipped. */
SEC("raw_tp/sched_process_exit")
int on_exit_again(struct bpf_raw_tracepoint_args *ctx)
{
	return handle_exit((struct task_struct *)ctx->args[0]);
}
