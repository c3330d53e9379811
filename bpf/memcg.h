/* SPDX-License-Identifier: GPL-2.0 */
/* Usage, limits and statistics of a memory cgroup. */
#ifndef OOMTRACE_MEMCG_H
#define OOMTRACE_MEMCG_H

#include "engine.h"
#include "event.h"

inline_always bool is_cgroup_v1(struct cgroup_subsys_state *css)
{
	struct cgroup *cgroup = READ(css, cgroup);
	struct cgroup_root *root = READ(cgroup, root);

	return READ(root, hierarchy_id) != 0; /* 0 is the root of v2, which is created first */
}

inline_always void read_counters(struct memcg_counters *to, struct mem_cgroup *memcg)
{
	bool v1 = is_cgroup_v1(&memcg->css);

	to->usage_pages = READ(memcg, memory.usage.counter);
	to->limit_pages = READ(memcg, memory.max);
	to->swap_usage_pages = to->swap_limit_pages = to->memsw_usage_pages = to->memsw_limit_pages = -1;
	if (v1) {
		to->memsw_usage_pages = READ(memcg, memsw.usage.counter);
		to->memsw_limit_pages = READ(memcg, memsw.max);
	} else {
		to->swap_usage_pages = READ(memcg, swap.usage.counter);
		to->swap_limit_pages = READ(memcg, swap.max);
	}
	to->oom_group = READ(memcg, oom_group);
	/* Since v6.14 only v1 counts failures (page_counter.track_failcnt). */
	to->failcnt = READ(memcg, memory.failcnt);
	if (EXISTS(page_counter, track_failcnt) && !v1)
		to->failcnt = -1;
}

struct stat_items {
	const char *state; /* array of long */
	u32 count;	   /* its length if a table maps items to places in it, else 0 */
	u32 base;	   /* first index in the table: 0 or 1 */
};

inline_always u32 table_entry(u32 item)
{
	return READ_AT(__u8, setting(stats_index) + item);
}

inline_always s64 read_stat(struct stat_items *items, u32 item)
{
	s64 value;

	if (items->count) {
		item = table_entry(item) - items->base;
		if (item >= items->count)
			return -1;
	}
	value = READ_AT(s64, items->state + item * sizeof(long));
	return value < 0 ? 0 : value;
}

inline_always bool find_stats(struct stat_items *items, struct mem_cgroup *memcg)
{
	items->count = items->base = 0;
	/* Before Linux commit 2d146aa3aa84 ("mm: memcontrol: switch to rstat") (in v5.13) an array in struct
	 * mem_cgroup. */
	if (EXISTS(mem_cgroup___array, vmstats)) {
		items->state = (const char *)&((struct mem_cgroup___array *)memcg)->vmstats;
		return true;
	}
	if (!EXISTS(memcg_vmstats, state))
		return false;
	/* Since Linux commit 410f8e82689e ("memcg: extract memcg_vmstats from struct mem_cgroup") (in v6.1) a pointer.
	 */
	if (EXISTS(mem_cgroup___pointer, vmstats))
		items->state = (const char *)READ((struct mem_cgroup___pointer *)memcg, vmstats);
	else
		items->state = (const char *)&((struct mem_cgroup___struct *)memcg)->vmstats;
	items->state += OFFSET(memcg_vmstats, state);

	/*
	 * Since Linux commit ff48c71c26aa ("memcg: reduce memory for the lruvec and memcg stats") (in v6.11) only some
	 * items are kept, at the places in the table mem_cgroup_stats_index.  It has one byte per item, counted from
	 * 1, and 0 for items that are not kept; later kernels count from 0, and have 255 for those.
	 */
	if (FIELD_SIZE(memcg_vmstats, state) / sizeof(long) < ENUM(memcg_stat_item, MEMCG_NR_STAT)) {
		if (setting(stats_index_size) / ENUM(memcg_stat_item, MEMCG_NR_STAT) != 1)
			return false;
		items->count = FIELD_SIZE(memcg_vmstats, state) / sizeof(long);
		items->base = table_entry(ENUM(node_stat_item, NR_DIRTIED)) == 0;
	}
	return true;
}

inline_always bool read_memcg_stat(struct memcg_stat *to, struct mem_cgroup *memcg)
{
	struct stat_items items;
	s64 reclaimable, unreclaimable;

	if (!find_stats(&items, memcg))
		return false;
	to->anon_pages = read_stat(&items, ENUM(node_stat_item, NR_ANON_MAPPED));
	to->file_pages = read_stat(&items, ENUM(node_stat_item, NR_FILE_PAGES));
	to->shmem_pages = read_stat(&items, ENUM(node_stat_item, NR_SHMEM));
	reclaimable = read_stat(&items, ENUM(node_stat_item, NR_SLAB_RECLAIMABLE_B));
	unreclaimable = read_stat(&items, ENUM(node_stat_item, NR_SLAB_UNRECLAIMABLE_B));
	to->slab_bytes = reclaimable < 0 || unreclaimable < 0 ? -1 : reclaimable + unreclaimable;
	to->sock_pages = read_stat(&items, ENUM(memcg_stat_item, MEMCG_SOCK));
	to->kernel_pages = -1;
	if (EXISTS_ENUM(memcg_stat_item, MEMCG_KMEM)) /* since v5.18 */
		to->kernel_pages = read_stat(&items, ENUM(memcg_stat_item, MEMCG_KMEM));
	else if (is_cgroup_v1(&memcg->css))
		to->kernel_pages = READ(memcg, kmem.usage.counter);
	return true;
}

#endif
