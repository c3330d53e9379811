/* SPDX-License-Identifier: GPL-2.0 */
/* The open incident, what the programs remember between hooks, and how an event is sent. */
#ifndef OOMTRACE_INCIDENT_H
#define OOMTRACE_INCIDENT_H

#include "memcg.h"
#include "path.h"

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

struct incident_state {
	u32 tid; /* of the trigger while an incident is open, else 0 */
	u32 victim_pid;
	u64 incident_ns;
	struct task_struct *marking;
	struct mm_struct *victim_mm;
	struct mem_cgroup *limit; /* the memcg whose limit was hit */
	struct mem_cgroup *oom_group;
	u32 in_summary;		/* tracepoint mode: what is logged now belongs to the "oom-kill:" line */
	u32 victim_logged;	/* tracepoint mode: the last victim's line was seen */
	u32 incident_sent;	/* its EVENT_INCIDENT has found room */
	u32 lost_before_victim; /* an event from before the victim has not: the victim is told in brief */
	u32 victim_brief;	/* the last victim was */
	u32 killed_again;	/* a victim that is about to be killed once more; without kprobes its thread */
	u32 first_pid;		/* the first victim */
	u32 first_killed_again; /* it was killed once more */
};

struct victim {
	u64 started_ns; /* of the process: its number may be given to the next one; first in each map of processes */
	u64 incident_ns;
	u64 killed_ns;
	u64 exited_ns; /* not 0: it was gone before it was marked, and the others are not known yet */
};

enum counter {
	COUNTER_LOST,	       /* events that found the ring buffer full */
	COUNTER_CGROUPS_LOST,  /* new cgroups that found theirs full */
	COUNTER_MISREAD,       /* the current task is not where the offsets say: nothing that is read can be believed */
	COUNTER_LOST_REPORTED, /* of COUNTER_LOST, in a record; written by user space, kept for the next run */
	COUNTER_SIGKILLS_LOST, /* sigkill events that were too many at once, or found their ring buffer full */
	COUNTER_SIGKILLS_LOST_REPORTED,
	COUNTER_LOSSLESS_UNTIL_NS, /* when user space last saw that all losses were told; it writes that for the next
				      run */
	COUNTERS,
};

DEFINE_RING(events, 1 << 20);
/* Containers may make cgroups as fast as they like: that must not crowd out the kills. */
DEFINE_RING(cgroups, 1 << 17);
DEFINE_MAP_FLAGS(counters, BPF_MAP_TYPE_ARRAY, u32, u64, COUNTERS, BPF_F_MMAPABLE);
DEFINE_MAP(incident_states, BPF_MAP_TYPE_ARRAY, u32, struct incident_state, 1);
DEFINE_MAP(path_walks, BPF_MAP_TYPE_ARRAY, u32, struct walk, 1);
DEFINE_MAP(scans, BPF_MAP_TYPE_ARRAY, u32, struct scan, 1);
DEFINE_MAP(incidents, BPF_MAP_TYPE_ARRAY, u32, struct incident_event, 1);
DEFINE_MAP(victim_events, BPF_MAP_TYPE_ARRAY, u32, struct victim_event, 1);
DEFINE_MAP(memcg_chains, BPF_MAP_TYPE_ARRAY, u32, struct memcg_chain_event, 1);
DEFINE_MAP(log_events, BPF_MAP_TYPE_ARRAY, u32, struct log_event, 1);
DEFINE_MAP(cgroup_events, BPF_MAP_TYPE_ARRAY, u32, struct cgroup_event, 1);
/*
 * Each LRU map gets more entries when it is loaded (tracer/capture/programs.py): before Linux commit d4adf1c9ee77
 * ("bpf: Adjust free target to avoid global starvation of LRU map") (in v6.17) every CPU keeps 128 free ones to itself.
 */
DEFINE_MAP(victim_by_tid, BPF_MAP_TYPE_LRU_HASH, u32, u32,
	   1024); /* thread that sent SIGKILL -> process that it killed */
DEFINE_MAP(awaiting_mark, BPF_MAP_TYPE_LRU_HASH, u32, u64,
	   4096); /* process that the kernel killed -> when it started */
DEFINE_MAP(awaiting_exit, BPF_MAP_TYPE_LRU_HASH, u32, struct victim, 4096);
/* Entries of a kilobyte are too large to have so many to spare.  Every exit removes its own. */
DEFINE_MAP(cmdlines, BPF_MAP_TYPE_HASH, u32, struct cmdline, 4096);
DEFINE_MAP(empty_cmdline, BPF_MAP_TYPE_ARRAY, u32, struct cmdline, 1);

inline_always u32 current_tid(void)
{
	return (u32)bpf_get_current_pid_tgid();
}

/* Whether the entry of a process in a map is that of the one that started then: the number alone may be reused. */
inline_always bool is_entry_of(const void *entry, u64 started_ns)
{
	return entry && *(const u64 *)entry == started_ns;
}

/* The open incident of the current thread; 0 when it has none. */
inline_always struct incident_state *current_incident(void)
{
	u32 zero = 0;
	struct incident_state *state = map_lookup(incident_states, &zero);

	/* A thread that is idle has the number that stands for no incident. */
	return state && state->tid && state->tid == current_tid() ? state : 0;
}

inline_always void count(u32 counter)
{
	u64 *value = map_lookup(counters, &counter);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/*
 * The daemon releases events only when what was made of them is written, so it has rarely caught up with the ring
 * buffer, and unless forced the kernel wakes it only then.
 */
inline_always bool try_to_send(void *event, u64 size)
{
	return ringbuf_output(events, event, size, BPF_RB_FORCE_WAKEUP) == 0;
}

inline_always void send(void *event, u64 size)
{
	if (!try_to_send(event, size))
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
inline_always struct incident_state *open_incident(void)
{
	u32 zero = 0;
	struct incident_state *state = map_lookup(incident_states, &zero);
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
	state->in_summary = state->victim_logged = 0;
	state->incident_sent = state->lost_before_victim = state->victim_brief = state->killed_again = 0;
	state->first_pid = state->first_killed_again = 0;

	incident->total_pages = incident->gfp_mask = 0;
	incident->chosen_points = 0;
	incident->order = incident->constraint = 0;
	incident->chosen_pid = incident->scored = incident->candidates_len = 0;
	incident->flags = 0;
	incident->message_len = incident->limit_cgroup_len = incident->trigger_cgroup_len = 0;
	incident->trigger_pid = pid_tgid >> 32;
	incident->trigger_uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(incident->trigger_comm, sizeof(incident->trigger_comm));
	return state;
}

/* The trigger's cgroup goes behind the other strings, so it is the last thing to be filled in.  Whether it found room.
 */
inline_always bool send_incident(struct incident_state *state, struct incident_event *incident)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct cgroup_subsys_state *css = memcg_css(task);
	u64 start = (u64)incident->message_len + incident->limit_cgroup_len, size;
	u32 zero = 0;
	struct walk *walk = map_lookup(path_walks, &zero);

	if (css && walk)
		incident->flags |=
			path_flags(append_cgroup(walk, incident->strings, start, css, &incident->trigger_cgroup_len),
				   INCIDENT_TRIGGER_CGROUP, INCIDENT_TRIGGER_TRUNCATED);
	stamp(&incident->event, EVENT_INCIDENT, state->incident_ns);
	size = clamp_to(start + incident->trigger_cgroup_len, sizeof(incident->strings));
	return try_to_send(incident, __builtin_offsetof(struct incident_event, strings) + size);
}

#endif
