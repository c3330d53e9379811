/* SPDX-License-Identifier: GPL-2.0 */
/* Exact memory counters of a process. */
#ifndef OOMTRACE_RSS_H
#define OOMTRACE_RSS_H

#include "engine.h"

/* An anonymous enum since Linux v4.5, so BTF does not have its name. */
#define MM_FILEPAGES 0
#define MM_ANONPAGES 1
#define MM_SWAPENTS 2
#define MM_SHMEMPAGES 3
#define MM_COUNTERS 4

#define CPUS_MAX 1024

DEFINE_MAP(percpu_anchor, BPF_MAP_TYPE_PERCPU_ARRAY, u32, u64, 1);

struct rss {
	s64 pages[MM_COUNTERS];
	bool exact;
};

inline_always s64 not_negative(s64 pages)
{
	return pages < 0 ? 0 : pages;
}

/*
 * Since Linux commit f1a7941243c1 ("mm: convert mm's rss stats into percpu_counter") (in v6.2) a counter is its
 * .count plus the parts that the CPUs have not added yet: up to batch x CPUs pages.  A CPU's part is at the per-CPU
 * pointer plus that CPU's offset.  No helper returns this offset, but it equals the distance between the address of a
 * per-CPU map's element on that CPU and the map's own per-CPU pointer.
 */
inline_always void add_percpu(struct rss *rss, int *const counters[MM_COUNTERS])
{
	u64 map_address = (u64)MAP(percpu_anchor);
	u64 element, base = 0;
	u32 zero = 0, cpu;
	int i;

	/* The verifier rejects arithmetic on map pointers; read back from the stack they are numbers. */
	bpf_probe_read_kernel(&element, sizeof(element), &map_address);
	bpf_probe_read_kernel(&base, sizeof(base), (char *)element + OFFSET(bpf_array, pptrs));
	if (!base)
		return;
	for (cpu = 0; cpu < CPUS_MAX; cpu++) {
		u64 address;

		if (cpu >= setting(cpus))
			break;
		address = (u64)map_lookup_percpu(percpu_anchor, &zero, cpu);
		bpf_probe_read_kernel(&element, sizeof(element), &address);
		if (!element)
			continue;
		for (i = 0; i < MM_COUNTERS; i++)
			rss->pages[i] += READ_AT(s32, (char *)counters[i] + (element - base));
	}
	rss->exact = setting(cpus) <= CPUS_MAX;
}

inline_always void read_rss(struct rss *rss, struct mm_struct *mm)
{
	int i;

	rss->exact = false;
	if (EXISTS(mm_struct___struct, rss_stat)) {
		const char *counts = (const char *)&((struct mm_struct___struct *)mm)->rss_stat;

		for (i = 0; i < MM_COUNTERS; i++)
			rss->pages[i] = READ_AT(s64, counts + i * sizeof(s64));
		rss->exact = true;
	} else {
		const char *counters = (const char *)&((struct mm_struct___array *)mm)->rss_stat;
		int *parts[MM_COUNTERS];

		for (i = 0; i < MM_COUNTERS; i++) {
			const char *counter = counters + i * SIZE(percpu_counter);

			rss->pages[i] = READ_AT(s64, counter + OFFSET(percpu_counter, count));
			parts[i] = READ_AT(int *, counter + OFFSET(percpu_counter, counters));
		}
		add_percpu(rss, parts);
	}
	for (i = 0; i < MM_COUNTERS; i++)
		rss->pages[i] = not_negative(rss->pages[i]);
}

#endif
