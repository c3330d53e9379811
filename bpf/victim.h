/* SPDX-License-Identifier: GPL-2.0 */
/* Reads a victim's fields, and matches the victim with its incident and its exit. */
#ifndef OOMTRACE_VICTIM_H
#define OOMTRACE_VICTIM_H

#include "brief.h"
#include "incident.h"
#include "rss.h"

#define PID_OF_GROUP 1 /* PIDTYPE_TGID */
#define MEMCG_DEPTH_MAX 32
#define LOG_STALE_NS 5000000000ULL

inline_always struct victim_event *victim_event(void)
{
	u32 zero = 0;

	return map_lookup(victim_events, &zero);
}

verified_once u32 read_victim_memory(u64 mm_address)
{
	struct mm_struct *mm = (struct mm_struct *)mm_address;
	struct victim_event *event = victim_event();
	struct rss rss;

	if (!event)
		return 0;
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
	return 0;
}

inline_always struct pid *group_pid(struct task_struct *task)
{
	struct signal_struct *signal = READ(task, signal);

	return READ_AT(struct pid *, (char *)&signal->pids + PID_OF_GROUP * sizeof(void *));
}

#ifndef OOMTRACE_HEADERS /* the headers of struct net double the compile time */
inline_always struct net *network_namespace(struct task_struct *task)
{
	struct nsproxy *nsproxy = READ(task, nsproxy);

	return READ(nsproxy, net_ns);
}
#endif

/* The host's network namespace is that of its init, which is reachable from every process's pid. */
inline_always void read_network_namespace(struct victim_event *event, struct task_struct *task, struct pid *pid)
{
#ifndef OOMTRACE_HEADERS
	struct pid_namespace *host = READ_AT(struct pid_namespace *, (char *)&pid->numbers + OFFSET(upid, ns));
	struct task_struct *init = READ(host, child_reaper);
	struct net *net = network_namespace(task);

	event->network_namespace = READ(net, ns.inum);
	if (EXISTS(net, net_cookie)) /* a plain u64 since Linux commit 3d368ab87cf6 (in v5.12) */
		event->network_cookie = READ(net, net_cookie);
	if (net && net == network_namespace(init))
		event->flags |= VICTIM_HOST_NETWORK;
#endif
}

inline_always void read_namespaces(struct victim_event *event, struct task_struct *task)
{
	struct pid *pid = group_pid(task);
	u32 level = READ(pid, level);
	char *upid = (char *)&pid->numbers + level * SIZE(upid);

	event->namespace_level = level;
	event->namespace_pid = READ_AT(int, upid + OFFSET(upid, nr));
	if (level) {
		struct pid_namespace *ns = READ_AT(struct pid_namespace *, upid + OFFSET(upid, ns));
		struct task_struct *init = READ(ns, child_reaper);

		event->init_pid = READ(init, tgid);
		event->init_started_ns = READ(init, start_boottime);
	}
	read_network_namespace(event, task, pid);
}

/* Up to the init of its PID namespace: its ancestors are processes of the container runtime. */
verified_once u32 read_ancestors(u64 leader_address)
{
	struct task_struct *task = (struct task_struct *)leader_address;
	struct victim_event *event = victim_event();
	u32 i;

	if (!event)
		return 0;
	for (i = 0; i < ANCESTORS_MAX; i++) {
		struct task_struct *parent = READ(task, real_parent), *leader = READ(parent, group_leader);
		struct pid *pid = group_pid(leader);

		if (!leader || READ(pid, level) < event->namespace_level || !READ(leader, pid))
			break;
		event->ancestors[i].pid = READ(leader, tgid);
		bpf_probe_read_kernel(event->ancestors[i].comm, COMM_LEN, &leader->comm);
		event->ancestors_len = i + 1;
		task = leader;
	}
	return 0;
}

/*
 * Append the victim's command line; returns its length.  The victim's memory can be read only if it is the current
 * task.  Otherwise the command line was stored at exec, or by user space at start.  A process that forked without exec
 * has its ancestor's, which has the same arg_start.
 */
verified_once u32 append_cmdline(u64 task_address, u64 mm_address)
{
	struct task_struct *task = (struct task_struct *)task_address;
	struct mm_struct *mm = (struct mm_struct *)mm_address;
	u64 arg_start = READ(mm, arg_start), arg_end = READ(mm, arg_end);
	struct cmdline *cmdline = 0;
	u64 len = clamp_to(arg_end - arg_start, CMDLINE_LEN), start;
	struct victim_event *event = victim_event();
	u32 i;

	if (!event)
		return 0;
	start = clamp_to((u64)event->cgroup_len + event->exe_len, 2 * PATH_LEN);
	if (arg_end - arg_start > CMDLINE_LEN)
		event->flags |= VICTIM_CMDLINE_TRUNCATED;
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
	len = clamp_to(cmdline->len, CMDLINE_LEN);
	if (bpf_probe_read_kernel(event->strings + start, len, cmdline->bytes))
		return 0;
	event->flags |= VICTIM_CMDLINE;
	if (i)
		event->flags |= VICTIM_FORKED;
	return len;
}

verified_once u32 append_victim_cgroup(u64 css_address)
{
	struct cgroup_subsys_state *css = (struct cgroup_subsys_state *)css_address;
	struct victim_event *event = victim_event();
	u32 zero = 0;
	struct walk *walk = map_lookup(path_walks, &zero);

	if (event && walk)
		event->flags |= path_flags(append_cgroup(walk, event->strings, 0, css, &event->cgroup_len),
					   VICTIM_CGROUP, VICTIM_CGROUP_TRUNCATED);
	return 0;
}

#ifndef OOMTRACE_HEADERS
verified_once u32 append_victim_exe(u64 mm_address)
{
	struct mm_struct *mm = (struct mm_struct *)mm_address;
	struct victim_event *event = victim_event();

	if (!event)
		return 0;
	event->flags |= VICTIM_EXE;
	if (!append_exe(event->strings, event->cgroup_len, mm, &event->exe_len))
		event->flags |= VICTIM_EXE_TRUNCATED;
	return 0;
}
#endif

inline_always void read_victim(struct victim_event *event, struct task_struct *task)
{
	struct cgroup_subsys_state *css = memcg_css(task);
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
	read_namespaces(event, task);
	read_ancestors((u64)leader);
	if (css)
		append_victim_cgroup((u64)css);
	if (!mm)
		return;
	read_victim_memory((u64)mm);
#ifndef OOMTRACE_HEADERS
	append_victim_exe((u64)mm);
#endif
	event->cmdline_len = append_cmdline((u64)task, (u64)mm);
}

inline_always void clear_victim(struct victim_event *event)
{
	__builtin_memset(event, 0, __builtin_offsetof(struct victim_event, strings));
	event->anon_rss_pages = event->file_rss_pages = event->shmem_rss_pages = event->swap_pages = -1;
	event->total_vm_pages = event->peak_rss_pages = event->page_tables_bytes = -1;
}

/* The highest cgroup from css up to limit with memory.oom.group set, as in mem_cgroup_get_oom_group(); v2 only. */
verified_once u64 find_oom_group(u64 css_address, u64 limit_address)
{
	struct cgroup_subsys_state *css = (struct cgroup_subsys_state *)css_address;
	struct mem_cgroup *limit = (struct mem_cgroup *)limit_address;
	struct mem_cgroup *group = 0;
	int i;

	if (!has_memory_controller())
		return 0;
	for (i = 0; i < MEMCG_DEPTH_MAX && css; i++) {
		struct mem_cgroup *memcg = (struct mem_cgroup *)css;

		if (READ(memcg, oom_group))
			group = memcg;
		if (memcg == limit)
			break;
		css = READ(css, parent);
	}
	return (u64)group;
}

/* Without struct oom_control any of these cgroups may be the one whose limit was reached. */
verified_once u32 send_memcg_chain(u64 css_address)
{
	struct cgroup_subsys_state *css = (struct cgroup_subsys_state *)css_address;
	u32 zero = 0, i;
	struct memcg_chain_event *event = map_lookup(memcg_chains, &zero);
	struct incident_state *state = map_lookup(incident_states, &zero);

	if (!has_memory_controller() || !event || !state)
		return 0;
	event->memcg_chain_len = 0;
	for (i = 0; i < MEMCG_CHAIN_MAX; i++) {
		struct cgroup_subsys_state *parent = READ(css, parent);

		if (!parent) /* the root has no limit */
			break;
		read_counters(&event->memcg_chain[i], (struct mem_cgroup *)css);
		event->memcg_chain_len = i + 1;
		css = parent;
	}
	stamp(&event->event, EVENT_MEMCG_CHAIN, state->incident_ns);
	if (!try_to_send(event,
			 __builtin_offsetof(struct memcg_chain_event, memcg_chain) +
				 clamp_to(event->memcg_chain_len, MEMCG_CHAIN_MAX) * sizeof(event->memcg_chain[0])))
		state->lost_before_victim = 1;
	return 0;
}

/* In tracepoint mode the victims determine the incident. */
inline_always struct incident_state *tracepoint_incident(struct task_struct *task)
{
	struct incident_state *state = current_incident();
	struct cgroup_subsys_state *css = task ? memcg_css(task) : 0;
	struct mem_cgroup *group = (struct mem_cgroup *)find_oom_group((u64)css, 0);
	bool next;

	/* Only members of the same group kill belong to the incident of an earlier victim. */
	next = state && state->victim_pid && (!group || state->oom_group != group);
	if (!state || next || bpf_ktime_get_boot_ns() - state->incident_ns > LOG_STALE_NS) {
		state = open_incident();
		if (!state)
			return 0;
	}
	state->oom_group = group;
	if (css && !state->victim_pid)
		send_memcg_chain((u64)css);
	return state;
}

inline_always void send_exit(u32 pid, struct victim *victim, u64 exited_ns)
{
	struct exit_event event = {};

	stamp(&event.event, EVENT_EXIT, victim->incident_ns);
	event.event.time_ns = exited_ns;
	event.killed_ns = victim->killed_ns;
	event.pid = pid;
	send_small(&event, sizeof(event));
}

/*
 * Mark and exit of a victim meet in the map awaiting_exit, in either order: SIGKILL is sent before the mark, and since
 * Linux commit "exit: move and extend sched_process_exit() tracepoint" (in v6.16) no lock of the killer delays the
 * exit. Returns the time of the exit, or 0 if it is still to come.
 */
inline_always u64 expect_exit(u32 pid, struct victim *victim)
{
	struct victim *early;
	u64 exited_ns;

	if (!map_update(awaiting_exit, &pid, victim, BPF_NOEXIST))
		return 0;
	early = map_lookup(awaiting_exit, &pid);
	exited_ns = early && early->started_ns == victim->started_ns ? early->exited_ns : 0;
	if (exited_ns) {
		map_delete(awaiting_exit, &pid);
		return exited_ns;
	}
	map_update(awaiting_exit, &pid, victim, BPF_ANY);
	return 0;
}

#endif
