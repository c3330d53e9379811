/* SPDX-License-Identifier: GPL-2.0 */
/* The open incident, state that the programs keep between hooks, and functions to send events. */
#ifndef OOMTRACE_INCIDENT_H
#define OOMTRACE_INCIDENT_H

#include "memcg.h"
#include "path.h"

struct cmdline {
	u64 arg_start; /* differs between two execs; the process id alone may be reused */
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
	struct mem_cgroup *limit; /* the memcg whose limit was reached */
	struct mem_cgroup *oom_group;
	u32 in_summary;		/* tracepoint mode: the text logged now belongs to the "oom-kill:" line */
	u32 victim_logged;	/* tracepoint mode: the last victim's line was read */
	u32 incident_sent;	/* EVENT_INCIDENT found room */
	u32 lost_before_victim; /* an event before the victim found no room, so the victim is sent in brief */
	u32 victim_brief;	/* the last victim was sent in brief */
	u32 killed_again;	/* pid of a victim about to be killed again; its tid without kprobes */
	u32 first_pid;		/* of the first victim */
	u32 first_killed_again; /* the first victim was killed again */
};

struct victim {
	u64 started_ns; /* of the process, because pids are reused; the first field in each map of processes */
	u64 incident_ns;
	u64 killed_ns;
	u64 exited_ns; /* not 0: it exited before its mark, and the fields above are not known yet */
};

enum counter {
	COUNTER_LOST,	       /* events that found no room */
	COUNTER_CGROUPS_LOST,  /* new cgroups that found no room */
	COUNTER_MISREAD,       /* the offsets do not match this kernel, so nothing that is read is valid */
	COUNTER_LOST_REPORTED, /* part of COUNTER_LOST that has a record; set by user space, for the next run */
	COUNTER_SIGKILLS_LOST, /* SIGKILL events that exceeded the rate limit or found no room */
	COUNTER_SIGKILLS_LOST_REPORTED,
	COUNTER_LOSSLESS_UNTIL_NS, /* when user space last found every loss reported; for the next run */
	COUNTERS,
};

DEFINE_RING(events, 1 << 20);
/* Separate, because containers may create cgroups at any rate, which must not take the room of kills. */
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
 * ("bpf: Adjust free target to avoid global starvation of LRU map") (in v6.17) every CPU reserves 128 free entries.
 * The kernel keeps 15 characters of a map's name.
 */
/* tid of the sender of the kernel's SIGKILL -> pid of the process that it killed */
DEFINE_MAP(victim_by_tid, BPF_MAP_TYPE_LRU_HASH, u32, u32, 1024);
/* pid of a process that the kernel sent SIGKILL, and that is not marked yet -> when it started */
DEFINE_MAP(awaiting_mark, BPF_MAP_TYPE_LRU_HASH, u32, u64, 4096);
DEFINE_MAP(awaiting_exit, BPF_MAP_TYPE_LRU_HASH, u32, struct victim, 4096);
/* Not an LRU map: an entry takes a kilobyte, too much for spare ones.  Every exit deletes its own. */
DEFINE_MAP(cmdlines, BPF_MAP_TYPE_HASH, u32, struct cmdline, 4096);
DEFINE_MAP(empty_cmdline, BPF_MAP_TYPE_ARRAY, u32, struct cmdline, 1);

inline_always u32 current_tid(void)
{
	return (u32)bpf_get_current_pid_tgid();
}

/* Whether a map entry is that of the process that started at started_ns: the pid alone may be reused. */
inline_always bool is_entry_of(const void *entry, u64 started_ns)
{
	return entry && *(const u64 *)entry == started_ns;
}

/* The open incident of the current thread, or 0. */
inline_always struct incident_state *current_incident(void)
{
	u32 zero = 0;
	struct incident_state *state = map_lookup(incident_states, &zero);

	/* 0 stands for no incident, and is also the tid of idle threads. */
	return state && state->tid && state->tid == current_tid() ? state : 0;
}

inline_always void count(u32 counter)
{
	u64 *value = map_lookup(counters, &counter);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/*
 * The kernel by default wakes a reader that has caught up.  The daemon rarely has: it releases events only when their
 * records are written.  So the wakeup is forced.
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

/* Start an incident of the current thread.  An incident that is still open has lost its end. */
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

/* Fills in the trigger's cgroup last, because it follows the other strings.  Returns whether the event found room. */
verified_once u32 send_incident(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct cgroup_subsys_state *css = memcg_css(task);
	u64 start, size;
	u32 zero = 0;
	struct walk *walk = map_lookup(path_walks, &zero);
	struct incident_state *state = map_lookup(incident_states, &zero);
	struct incident_event *incident = map_lookup(incidents, &zero);

	if (!state || !incident)
		return 0;
	start = (u64)incident->message_len + incident->limit_cgroup_len;
	if (css && walk)
		incident->flags |=
			path_flags(append_cgroup(walk, incident->strings, start, css, &incident->trigger_cgroup_len),
				   INCIDENT_TRIGGER_CGROUP, INCIDENT_TRIGGER_TRUNCATED);
	stamp(&incident->event, EVENT_INCIDENT, state->incident_ns);
	size = clamp_to(start + incident->trigger_cgroup_len, sizeof(incident->strings));
	return try_to_send(incident, __builtin_offsetof(struct incident_event, strings) + size);
}

#endif
