/* SPDX-License-Identifier: GPL-2.0 */
/* SIGKILLs that the OOM killer did not send: sender and killed process. */
#ifndef OOMTRACE_SIGKILL_H
#define OOMTRACE_SIGKILL_H

#include "victim.h"

/* Other names than the kernel's, which bcc may see in its headers. */
#define SIGNAL_KILL 9
#define SIGNAL_CHILD 17
#define SIGNAL_DELIVERED 0	    /* TRACE_SIGNAL_DELIVERED */
#define INFO_FROM_USER 0	    /* SEND_SIG_NOINFO: cgroup.kill, PR_SET_PDEATHSIG */
#define INFO_FROM_KERNEL 1	    /* SEND_SIG_PRIV */
#define KERNEL_THREAD 0x00200000    /* PF_KTHREAD */
#define KERNEL_STACK_MAX (64 << 10) /* of a task's kernel stack, with pages of 64 KiB */
#define LONG_NAME 36 /* a UUID: the shortest cgroup name of a container that has no namespace of its own */
#define LONG_NAME_LEVELS 16
#define NAMESPACES_MAX 32 /* MAX_PID_NS_LEVEL */

/*
 * Rate limits: burst size, and nanoseconds per further event; of all SIGKILLs, and of one cgroup's.  Any process that
 * can fork can send thousands of SIGKILLs per second, and each becomes a line of JSON.  The ring buffer has room for a
 * burst, for a slow reader, if the cgroup paths of an event have no more than 150 bytes on average.
 */
#define RATE_BURST 1024
#define RATE_NS 8000000
#define CGROUP_BURST 512
#define CGROUP_NS 32000000

enum sigkill_scope {
	SIGKILL_OFF,
	SIGKILL_CONTAINERS,
	SIGKILL_ALL,
};

struct rate_limit {
	u64 counted_ns;
	u64 used;
};

/* Separate from OOM kills, so that a storm of SIGKILLs does not take their room. */
DEFINE_RING(sigkills, 1 << 18);
/* pid of a process whose SIGKILL was handled -> when it started */
DEFINE_MAP(sigkilled, BPF_MAP_TYPE_LRU_HASH, u32, u64, 8192);
DEFINE_MAP(sigkill_rate, BPF_MAP_TYPE_ARRAY, u32, struct rate_limit, 1);
DEFINE_MAP(cgroup_rates, BPF_MAP_TYPE_LRU_HASH, u64, struct rate_limit, 1024);

/* Not atomic: concurrent CPUs may exceed the limit a little.  Returns whether there is room. */
inline_always bool below_rate_limit(struct rate_limit *rate, u64 burst, u64 each_ns, u64 now_ns)
{
	u64 regained = (now_ns - rate->counted_ns) / each_ns;

	if (regained) {
		rate->used = rate->used > regained ? rate->used - regained : 0;
		rate->counted_ns = now_ns;
	}
	return rate->used < burst;
}

/* Count one SIGKILL of this cgroup, unless a rate limit is reached; returns whether it was counted. */
inline_always bool charge_rate_limits(struct cgroup_subsys_state *css)
{
	u64 key = (u64)css, now_ns = bpf_ktime_get_boot_ns();
	struct rate_limit fresh = { .counted_ns = now_ns };
	u32 zero = 0;
	struct rate_limit *all = map_lookup(sigkill_rate, &zero), *own = map_lookup(cgroup_rates, &key);

	if (!own) {
		map_update(cgroup_rates, &key, &fresh, BPF_NOEXIST);
		own = map_lookup(cgroup_rates, &key);
	}
	if (!all || !own || !below_rate_limit(own, CGROUP_BURST, CGROUP_NS, now_ns) ||
	    !below_rate_limit(all, RATE_BURST, RATE_NS, now_ns))
		return false;
	own->used++;
	all->used++;
	return true;
}

/*
 * Whether the kernel itself sent a signal that has a siginfo.  Otherwise the current task did, whatever siginfo says:
 * a process may write anything there except a positive si_code (SI_FROMKERNEL).  A system call has its siginfo on the
 * stack.  That of a POSIX timer is elsewhere, and the current task is the one that the timer interrupted.
 */
inline_always bool is_from_kernel(struct kernel_siginfo *info, struct task_struct *running)
{
	if ((u64)info == INFO_FROM_USER)
		return false;
	return READ(info, si_code) > 0 || (u64)info - (u64)READ(running, stack) >= KERNEL_STACK_MAX;
}

/* Whether the init of a PID namespace of this process has exited: the kernel kills all other processes in it. */
inline_always bool ends_with_namespace(struct task_struct *task, struct pid *pid)
{
	u32 i;

	/* The level is read in each iteration: bcc keeps a copy on the stack, with which 6.1 fails to verify (EFAULT).
	 */
	for (i = 1; i <= NAMESPACES_MAX && i <= READ(pid, level); i++) {
		char *upid = (char *)&pid->numbers + i * SIZE(upid);
		struct pid_namespace *ns = READ_AT(struct pid_namespace *, upid + OFFSET(upid, ns));
		struct task_struct *init = READ(ns, child_reaper);
		struct signal_struct *signal = READ(init, signal);

		if (READ(init, tgid) != READ(task, tgid) && READ(signal, live.counter) <= 0)
			return true;
	}
	return false;
}

inline_always struct mnt_namespace *mount_namespace(struct task_struct *task)
{
	struct nsproxy *nsproxy = READ(task, nsproxy);

	return READ(nsproxy, mnt_ns);
}

/*
 * False if the process cannot be in a container.  User space decides on the rest by the cgroup's path.  A container may
 * share the host's PID namespace, but then it has a mount namespace of its own, or a cgroup name that is an id (Nomad).
 */
inline_always bool may_be_contained(struct sigkill_event *event, struct task_struct *task, struct pid *pid,
				    struct cgroup_subsys_state *css)
{
	struct pid_namespace *host = READ_AT(struct pid_namespace *, (char *)&pid->numbers + OFFSET(upid, ns));
	struct task_struct *init = READ(host, child_reaper);
	struct cgroup *cgroup = READ(css, cgroup);
	struct kernfs_node *kn = READ(cgroup, kn);
	int i;

	if (event->namespace_level || mount_namespace(task) != mount_namespace(init))
		return true;
	for (i = 0; i < LONG_NAME_LEVELS && kn; i++) {
		if (bpf_probe_read_kernel_str(event->strings, NAME_LEN, READ(kn, name)) > LONG_NAME)
			return true;
		kn = kernfs_parent(kn);
	}
	return kn != 0;
}

inline_always void read_sigkilled(struct sigkill_event *event, struct task_struct *task, struct pid *pid)
{
	struct cred *cred = (struct cred *)READ(task, real_cred);
	u32 level = READ(pid, level);

	event->pid = READ(task, tgid);
	event->tid = READ(task, pid);
	event->uid = READ(cred, uid.val);
	event->namespace_level = level;
	event->namespace_pid = READ_AT(int, (char *)&pid->numbers + level * SIZE(upid) + OFFSET(upid, nr));
	bpf_probe_read_kernel(event->comm, sizeof(event->comm), &task->comm);
}

inline_always void read_sender(struct sigkill_event *event, struct walk *walk, struct task_struct *running)
{
	struct cgroup_subsys_state *css = memcg_css(running);

	event->sender_pid = bpf_get_current_pid_tgid() >> 32;
	event->sender_uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(event->sender_comm, sizeof(event->sender_comm));
	if (!css)
		return;
	event->flags |=
		path_flags(append_cgroup(walk, event->strings, event->cgroup_len, css, &event->sender_cgroup_len),
			   SIGKILL_SENDER_CGROUP, SIGKILL_SENDER_TRUNCATED);
}

/* Buffers that an event is composed in: a signal may be sent while an exit is interrupted or preempted. */
enum sigkill_scratch {
	SCRATCH_SIGNAL, /* under a lock, with interrupts off */
	SCRATCH_EXIT,
	SCRATCH_COUNT,
};

DEFINE_MAP(sigkill_events, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct sigkill_event, SCRATCH_COUNT);
DEFINE_MAP(sigkill_walks, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct walk, SCRATCH_COUNT);

/* The process is killed by SIGKILL; running is the sender, or 0. */
inline_always void send_sigkill(u32 place, struct task_struct *task, struct task_struct *running, u32 flags)
{
	struct sigkill_event *event = map_lookup(sigkill_events, &place);
	struct walk *walk = map_lookup(sigkill_walks, &place);
	struct cgroup_subsys_state *css = memcg_css(task);
	struct pid *pid = group_pid(task);
	u64 size;

	if (!event || !walk)
		return;
	__builtin_memset(event, 0, __builtin_offsetof(struct sigkill_event, strings));
	read_sigkilled(event, task, pid);
	if (setting(sigkill) == SIGKILL_CONTAINERS && !may_be_contained(event, task, pid, css))
		return;
	if (!charge_rate_limits(css)) {
		count(COUNTER_SIGKILLS_LOST);
		return;
	}
	event->flags = flags;
	if (css)
		event->flags |= path_flags(append_cgroup(walk, event->strings, 0, css, &event->cgroup_len),
					   SIGKILL_CGROUP, SIGKILL_CGROUP_TRUNCATED);
	if (running)
		read_sender(event, walk, running);
	stamp(&event->event, EVENT_SIGKILL, 0);
	size = clamp_to((u32)event->cgroup_len + event->sender_cgroup_len, sizeof(event->strings));
	if (ringbuf_output(sigkills, event, __builtin_offsetof(struct sigkill_event, strings) + size,
			   BPF_RB_FORCE_WAKEUP))
		count(COUNTER_SIGKILLS_LOST);
}

/*
 * A delivered SIGKILL with a siginfo, so not from the OOM killer.  It killed the process if this is the process's exit
 * code now.  A process that was dying keeps its earlier exit code, and a process that was killed before (older kernels
 * deliver again) is in the map sigkilled.  Signals to exiting processes are not delivered.
 */
inline_always void handle_sigkill(struct task_struct *task, struct kernel_siginfo *info)
{
	struct task_struct *running = (struct task_struct *)bpf_get_current_task(), *leader = READ(task, group_leader);
	struct signal_struct *signal = READ(task, signal);
	u32 number = READ(task, tgid);
	u64 started_ns = READ(leader, start_boottime);

	if (READ(signal, group_exit_code) != SIGNAL_KILL || READ(task, flags) & KERNEL_THREAD)
		return;
	if (is_entry_of(map_lookup(sigkilled, &number), started_ns))
		return;
	map_update(sigkilled, &number, &started_ns, BPF_ANY);
	if (is_from_kernel(info, running))
		send_sigkill(SCRATCH_SIGNAL, task, 0, SIGKILL_FROM_KERNEL);
	else
		send_sigkill(SCRATCH_SIGNAL, task, running, 0);
}

/*
 * A process that exits of a SIGKILL which handle_sigkill() has not handled.  Either the kernel sent it without a
 * siginfo and not as the OOM killer, or no program saw it: a tracer's (PTRACE_CONT) passes no tracepoint, and for a
 * signal from an interrupt the kernel may run no programs in the context of the interrupted task.
 */
inline_always void handle_sigkill_exit(u32 place, struct task_struct *task, u32 number, u64 started_ns,
				       bool awaits_mark)
{
	struct signal_struct *signal = READ(task, signal);

	/* Before v5.17 group_exit_code is not set for a single-threaded process that was not sent the signal. */
	if ((READ(signal, group_exit_code) != SIGNAL_KILL && READ(task, exit_code) != SIGNAL_KILL) ||
	    READ(task, flags) & KERNEL_THREAD)
		return;
	if (map_update(sigkilled, &number, &started_ns, BPF_NOEXIST)) {
		if (is_entry_of(map_lookup(sigkilled, &number), started_ns))
			return;
		map_update(sigkilled, &number, &started_ns, BPF_ANY);
	}
	if (!ends_with_namespace(task, group_pid(task)))
		send_sigkill(place, task, 0, SIGKILL_FROM_KERNEL | (awaits_mark ? 0 : SIGKILL_UNSEEN));
}

#endif
