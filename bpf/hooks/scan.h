/* SPDX-License-Identifier: GPL-2.0 */
/* The scan for a victim: out_of_memory(), oom_badness(). */
#ifndef OOMTRACE_HOOKS_SCAN_H
#define OOMTRACE_HOOKS_SCAN_H

#include "incident.h"
#include "rss.h"

#define POINTS_UNKILLABLE (-__LONG_MAX__ - 1)

SEC("kprobe/out_of_memory")
int on_out_of_memory(struct pt_regs *ctx)
{
	u32 zero = 0, tid = current_tid();
	struct scan *scan = map_lookup(scans, &zero);

	map_delete(victim_by_tid, &tid); /* a mark without a SIGKILL from now on is no kill */
	if (!scan)
		return 0;
	scan->tid = tid;
	scan->scored = scan->candidates_len = 0;
	scan->scoring = scan->last = 0;
	return 0;
}

/* Readers of /proc/PID/oom_score also call oom_badness(), so only the scanning thread counts. */
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
	if (mm) { /* a leader that has exited has none, although its threads live */
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
	/* If the compiler split the function, both parts return. */
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

#endif
