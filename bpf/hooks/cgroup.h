/* SPDX-License-Identifier: GPL-2.0 */
/* New cgroups: the tracepoint cgroup_mkdir. */
#ifndef OOMTRACE_HOOKS_CGROUP_H
#define OOMTRACE_HOOKS_CGROUP_H

#include "incident.h"

/* The kernel fires this tracepoint under a lock, so one buffer is enough. */
SEC("raw_tp/cgroup_mkdir")
int on_cgroup_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	struct cgroup *cgroup = (struct cgroup *)ctx->args[0];
	struct cgroup_event *event;
	u32 zero = 0;
	long copied;

	if (!has_memory_controller() ||
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
	if (ringbuf_output(cgroups, event, __builtin_offsetof(struct cgroup_event, path) + clamp_to(copied, PATH_LEN),
			   0))
		count(COUNTER_CGROUPS_LOST);
	return 0;
}

#endif
