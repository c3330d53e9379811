/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is kept of kills when their ring buffer is full, as in a storm while no daemon reads it: the essentials of each
 * victim, in a ring buffer of their own.  The paths of cgroups, which take most of an event, are kept once each.
 */
#ifndef OOMTRACE_BRIEF_H
#define OOMTRACE_BRIEF_H

#include "incident.h"
#include "rss.h"

#define PATHS_BYTES (1 << 19)
#define PATH_STORED_MAX 1024	/* of one path; a longer one keeps its root end, which tells whose it is */
#define PATH_INDEX_ENTRIES 4096 /* a power of two; more of usual length have no room in PATHS_BYTES */
#define PATH_INDEX_PROBES 8
#define LIMIT_DEPTH_MAX 32
#define NO_LIMIT_PAGES (1LL << 46) /* less than LONG_MAX / PAGE_SIZE, the kernel's "no limit", for any page size */

struct paths {
	char bytes[PATHS_BYTES];
	u32 used;
	u32 epoch; /* rises when the room is given out anew */
};

struct path_index_entry {
	u64 cgroup; /* the id of its kernfs node, never given again */
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

/* Room for 10,000 kills, each with its exit and the kernel log's word. */
DEFINE_RING(briefs, 1 << 21);
DEFINE_MAP_FLAGS(paths, BPF_MAP_TYPE_ARRAY, u32, struct paths, 1, BPF_F_MMAPABLE);
DEFINE_MAP(path_index, BPF_MAP_TYPE_ARRAY, u32, struct path_index_entry, PATH_INDEX_ENTRIES);
DEFINE_MAP(brief_events, BPF_MAP_TYPE_ARRAY, u32, struct brief_scratch, 1);

/* What is no kill leaves the last sixteenth of the room to the kills. */
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
 * Tell where the path of this cgroup is kept.  Once the daemon has let go of all briefs nobody needs the paths that are
 * there: then the room is given out anew.
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
	/* Where all of these places are taken the last one is taken over: its path will be kept once more. */
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
 * Which of css and those above it is limit, as a number of names; where limit is not known, the only one that has one.
 *
 * What was found lies in a map and is read anew in each turn, as in append_name(): else the verifier walks through
 * all combinations.
 */
inline_always u32 limit_level_of(volatile struct brief_scratch *scratch, struct cgroup_subsys_state *css,
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

/* In place of a victim_event that finds no room. */
inline_always void send_brief(struct victim_event *event, struct task_struct *task, struct incident_state *state,
			      struct incident_event *incident)
{
	struct cgroup_subsys_state *css = task ? memcg_css(task) : 0;
	struct mem_cgroup *limit = state ? state->limit : 0;
	bool seen = state && incident->flags & INCIDENT_OC;
	u32 zero = 0;
	struct brief_scratch *scratch = map_lookup(brief_events, &zero);
	struct brief_event *brief;

	if (!scratch) {
		count(COUNTER_LOST);
		return;
	}
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
	if (seen) {
		brief->flags |= BRIEF_OC;
		brief->constraint = incident->constraint;
		if (incident->flags & INCIDENT_MEMCG)
			brief->flags |= BRIEF_MEMCG;
		if (incident->order == -1)
			brief->flags |= BRIEF_SYSRQ;
	}
	brief->limit_level = BRIEF_NO_LEVEL;
	if (css) {
		if (!(event->flags & VICTIM_CGROUP_TRUNCATED) && (limit || !seen))
			brief->limit_level = limit_level_of(scratch, css, limit);
		store_path(brief, event, css);
	}
	if (ringbuf_output(briefs, brief, sizeof(*brief), BPF_RB_FORCE_WAKEUP))
		count(COUNTER_LOST);
}

inline_always bool begins_with(const char *text, const char *start, u32 len)
{
	u32 i;

	for (i = 0; i < len; i++)
		if (text[i] != start[i])
			return false;
	return true;
}

/* In place of the line "MESSAGE: Killed process" where that finds no room. */
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
