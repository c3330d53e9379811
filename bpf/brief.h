/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kills in brief, for when the ring buffer is full, as in a storm while no daemon reads it: the main fields of each
 * victim, in a ring buffer of their own.  Cgroup paths, which take most of an event, are stored once each.
 */
#ifndef OOMTRACE_BRIEF_H
#define OOMTRACE_BRIEF_H

#include "incident.h"
#include "rss.h"

#define PATHS_BYTES (1 << 19)
#define PATH_STORED_MAX 1024	/* bytes of one path; a longer one keeps its root end, which identifies the container */
#define PATH_INDEX_ENTRIES 4096 /* a power of two; PATHS_BYTES has no room for more of usual length */
#define PATH_INDEX_PROBES 8
#define LIMIT_DEPTH_MAX 32
#define NO_LIMIT_PAGES (1LL << 46) /* less than LONG_MAX / PAGE_SIZE, the kernel's "no limit", for any page size */

struct paths {
	char bytes[PATHS_BYTES];
	u32 used;
	u32 epoch; /* incremented when the room is reused */
};

struct path_index_entry {
	u64 cgroup; /* id of its kernfs node, never reused */
	u32 epoch;
	u32 at;
	u32 len;
	u32 pad;
};

struct brief_scratch {
	struct brief_event brief;
	u32 limits;
	u32 limit_depth;
};

/* Room for 10,000 kills, each with its exit and its kernel log line. */
DEFINE_RING(briefs, 1 << 21);
DEFINE_MAP_FLAGS(paths, BPF_MAP_TYPE_ARRAY, u32, struct paths, 1, BPF_F_MMAPABLE);
DEFINE_MAP(path_index, BPF_MAP_TYPE_ARRAY, u32, struct path_index_entry, PATH_INDEX_ENTRIES);
DEFINE_MAP(brief_events, BPF_MAP_TYPE_ARRAY, u32, struct brief_scratch, 1);

/* Events other than kills leave the last sixteenth of the ring buffer to kills. */
inline_always void send_small(void *event, u64 size)
{
	u64 room;

	if (try_to_send(event, size))
		return;
	room = ringbuf_query(briefs, BPF_RB_RING_SIZE);
	if (ringbuf_query(briefs, BPF_RB_AVAIL_DATA) > room - room / 16 ||
	    ringbuf_output(briefs, event, size, BPF_RB_FORCE_WAKEUP))
		count(COUNTER_LOST);
}

/*
 * Store the path of this cgroup, or find the stored one, and refer to it in brief.  Once the daemon has released all
 * brief events, the stored paths are not needed, and their room is reused.
 */
inline_always void store_path(struct brief_event *brief, struct victim_event *event, struct cgroup_subsys_state *css)
{
	struct cgroup *cgroup = READ(css, cgroup);
	struct kernfs_node *kn = READ(cgroup, kn);
	u32 zero = 0, slot, i;
	struct paths *store = map_lookup(paths, &zero);
	struct path_index_entry *entry = 0;
	u64 id = READ(kn, id), len = event->cgroup_len, skip = 0, at;

	brief->flags &= ~VICTIM_CGROUP;
	if (!store || !(event->flags & VICTIM_CGROUP))
		return;
	if (len > PATH_STORED_MAX) {
		skip = len - PATH_STORED_MAX;
		len = PATH_STORED_MAX;
		brief->flags |= BRIEF_LEAF_TRUNCATED;
	}
	if (!ringbuf_query(briefs, BPF_RB_AVAIL_DATA)) {
		store->used = 0;
		store->epoch++;
	}
	slot = (id * 0x9e3779b97f4a7c15ULL) >> 40;
	for (i = 0; i < PATH_INDEX_PROBES; i++) {
		slot = (slot + 1) & (PATH_INDEX_ENTRIES - 1);
		entry = map_lookup(path_index, &slot);
		if (!entry)
			return;
		if (entry->epoch != store->epoch)
			break;
		if (entry->cgroup == id) {
			brief->path = entry->at;
			brief->path_len = entry->len;
			brief->flags |= VICTIM_CGROUP;
			return;
		}
	}
	/* If all of these entries are in use, the last is replaced: its path will be stored again. */
	at = store->used;
	if (!entry || at > PATHS_BYTES - PATH_STORED_MAX)
		return;
	at = clamp_to(at, PATHS_BYTES - PATH_STORED_MAX);
	len = clamp_to(len, PATH_STORED_MAX);
	if (bpf_probe_read_kernel(store->bytes + at, len, event->strings + clamp_to(skip, PATH_LEN)))
		return;
	store->used = at + len;
	entry->cgroup = id;
	entry->epoch = store->epoch;
	entry->at = at;
	entry->len = len;
	brief->path = at;
	brief->path_len = len;
	brief->flags |= VICTIM_CGROUP;
}

inline_always bool is_limited(struct mem_cgroup *memcg, bool v1)
{
	return (s64)READ(memcg, memory.max) < NO_LIMIT_PAGES || (v1 && (s64)READ(memcg, memsw.max) < NO_LIMIT_PAGES);
}

/*
 * The number of names, from the root, of the cgroup of limit: css's or an ancestor's.  If limit is not known, of the
 * only one of them that has a limit.
 *
 * Results of an iteration are in a map and are read again in the next one, as in append_name().
 */
inline_always u32 find_limit_level(volatile struct brief_scratch *scratch, struct cgroup_subsys_state *css,
				   struct mem_cgroup *limit)
{
	bool v1 = is_cgroup_v1(css);
	u32 i;

	scratch->limits = 0;
	for (i = 0; i < LIMIT_DEPTH_MAX; i++) {
		struct cgroup_subsys_state *parent = READ(css, parent);
		struct mem_cgroup *memcg = (struct mem_cgroup *)css;

		if (!parent) /* the root has no limit */
			return scratch->limits == 1 ? i - scratch->limit_depth : BRIEF_NO_LEVEL;
		if (limit ? memcg == limit : is_limited(memcg, v1)) {
			scratch->limit_depth = i;
			scratch->limits++;
		}
		css = parent;
	}
	return BRIEF_NO_LEVEL;
}

inline_always u32 brief_pages(s64 pages)
{
	return pages < 0 || pages >= BRIEF_UNKNOWN_PAGES ? BRIEF_UNKNOWN_PAGES : pages;
}

/* Replaces a victim_event that finds no room. */
verified_once u32 send_brief(u64 task_address, u32 has_incident)
{
	struct task_struct *task = (struct task_struct *)task_address;
	struct cgroup_subsys_state *css = task ? memcg_css(task) : 0;
	u32 zero = 0;
	struct victim_event *event = map_lookup(victim_events, &zero);
	struct incident_state *state = map_lookup(incident_states, &zero);
	struct incident_event *incident = map_lookup(incidents, &zero);
	struct brief_scratch *scratch = map_lookup(brief_events, &zero);
	struct mem_cgroup *limit;
	struct brief_event *brief;
	bool has_oom_control;

	if (!event || !state || !incident || !scratch) {
		count(COUNTER_LOST);
		return 0;
	}
	limit = has_incident ? state->limit : 0;
	has_oom_control = has_incident && incident->flags & INCIDENT_OC;
	brief = &scratch->brief;
	__builtin_memset(brief, 0, sizeof(*brief));
	brief->event = event->event;
	brief->event.type = EVENT_BRIEF;
	brief->started_ns = event->started_ns;
	brief->total_vm_pages = event->total_vm_pages;
	brief->anon_rss_pages = brief_pages(event->anon_rss_pages);
	brief->file_rss_pages = brief_pages(event->file_rss_pages);
	brief->shmem_rss_pages = brief_pages(event->shmem_rss_pages);
	brief->swap_pages = brief_pages(event->swap_pages);
	brief->pid = event->pid;
	brief->tid = event->tid;
	brief->uid = event->uid;
	brief->namespace_pid = event->namespace_pid;
	brief->namespace_level = event->namespace_level;
	brief->flags = event->flags;
	brief->oom_score_adj = event->oom_score_adj;
	__builtin_memcpy(brief->comm, event->comm, sizeof(brief->comm));
	if (has_oom_control) {
		brief->flags |= BRIEF_OC;
		brief->constraint = incident->constraint;
		if (incident->flags & INCIDENT_MEMCG)
			brief->flags |= BRIEF_MEMCG;
		if (incident->order == -1)
			brief->flags |= BRIEF_SYSRQ;
	}
	brief->limit_level = BRIEF_NO_LEVEL;
	if (css) {
		if (!(event->flags & VICTIM_CGROUP_TRUNCATED) && (limit || !has_oom_control))
			brief->limit_level = find_limit_level(scratch, css, limit);
		store_path(brief, event, css);
	}
	if (ringbuf_output(briefs, brief, sizeof(*brief), BPF_RB_FORCE_WAKEUP))
		count(COUNTER_LOST);
	return 0;
}

inline_always bool begins_with(const char *text, const char *start, u32 len)
{
	u32 i;

	for (i = 0; i < len; i++)
		if (text[i] != start[i])
			return false;
	return true;
}

/* Replaces an EVENT_LOG "MESSAGE: Killed process" that finds no room. */
inline_always void send_log_brief(struct incident_state *state, struct log_event *log)
{
	const char memcg[] = "Memory cgroup out of memory: ", host[] = "Out of memory: ";
	struct log_brief_event event = {};

	if (begins_with(log->text, memcg, sizeof(memcg) - 1))
		event.message = MESSAGE_MEMCG;
	else if (begins_with(log->text, host, sizeof(host) - 1))
		event.message = MESSAGE_HOST;
	stamp(&event.event, EVENT_LOG_BRIEF, state->incident_ns);
	send_small(&event, sizeof(event));
}

#endif
