/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the BPF programs write into the ring buffer and tracer/capture/wire.py reads.
 *
 * Native byte order, natural alignment, no holes.  -1 in a signed field and 0 in an id mean "unknown".  Sizes are
 * in pages where the name says so: the page size is user space's to know.  Strings of variable length follow the
 * fixed part in the order of their *_len fields, without separators.  Paths are lists of names from the leaf to
 * the root, each ended by a NUL: that is the order in which the kernel's trees can be walked.
 */
#ifndef OOMTRACE_EVENT_H
#define OOMTRACE_EVENT_H

/*
 * Rises when an event or the meaning of a map that is pinned (tracer/capture/pins.py) changes: a daemon of another
 * version may find them.
 */
#define EVENT_LAYOUT 3

#define COMM_LEN 16
#define CANDIDATES_MAX 10
#define MEMCG_CHAIN_MAX 16
#define NAME_LEN 256	 /* one name of a path: NAME_MAX and its NUL */
#define PATH_LEN 4096	 /* longer paths of cgroups lose their leaf end, others their root end: the *_CUT flags */
#define CMDLINE_LEN 1024 /* bytes of a command line that are kept */
#define LOG_LEN 1024	 /* LOG_LINE_MAX of printk */
#define ANCESTORS_MAX 8
#define MESSAGE_LEN 64

enum event_type {
	EVENT_VICTIM = 1,
	EVENT_INCIDENT = 2, /* comes before the first victim */
	EVENT_SHARED_MM = 3,
	EVENT_EXIT = 4,
	EVENT_MEMCG_CHAIN = 5,	 /* tracepoint mode only: the victim's memcg and those above it */
	EVENT_LOG = 6,		 /* tracepoint mode only: a line of the kernel log about this incident */
	EVENT_END = 7,		 /* no victim and no sharer comes any more; just struct event */
	EVENT_CGROUP = 8,	 /* a memory cgroup was made; in a ring buffer of its own */
	EVENT_SIGKILL = 9,	 /* somebody else than the OOM killer kills; in a ring buffer of its own */
	EVENT_BRIEF = 10,	 /* a victim that found no room for EVENT_VICTIM; in the ring buffer "briefs" */
	EVENT_LOG_BRIEF = 11,	 /* the same for its EVENT_LOG */
	EVENT_KILLED_AGAIN = 12, /* a victim of an earlier incident is killed, and counted, once more */
};

struct event {
	__u32 type;
	__u32 tid;	   /* thread in whose context it happened: the trigger */
	__u64 time_ns;	   /* CLOCK_BOOTTIME */
	__u64 incident_ns; /* when the incident began: names it, as the kernel runs one at a time (oom_lock);
			    * time_ns itself where the beginning was not seen */
};

enum victim_flags {
	VICTIM_TASK = 1 << 0, /* the task could be read: without it only tid is known */
	VICTIM_CMDLINE = 1 << 1,
	VICTIM_EXE = 1 << 2,
	VICTIM_CGROUP = 1 << 3,
	VICTIM_CGROUP_TRUNCATED = 1 << 4,
	VICTIM_EXE_TRUNCATED = 1 << 5,
	VICTIM_CMDLINE_TRUNCATED = 1 << 6,
	VICTIM_RSS_EXACT = 1 << 7,     /* the per-CPU parts are in, or this kernel has none */
	VICTIM_GROUP = 1 << 8,	       /* memory.oom.group is set in its cgroup or above */
	VICTIM_FORKED = 1 << 9,	       /* the command line is an ancestor's: no exec since the fork */
	VICTIM_MARKED = 1 << 10,       /* tracepoint mode only: no SIGKILL was seen; a kill if the kernel log says so */
	VICTIM_HOST_NETWORK = 1 << 11, /* its network namespace is that of the host's init */
};

struct ancestor {
	__u32 pid;
	char comm[COMM_LEN];
};

struct victim_event {
	struct event event;
	__u64 started_ns;      /* CLOCK_BOOTTIME */
	__u64 init_started_ns; /* the same of its PID namespace's init; 0 where that is the host's */
	__u64 network_cookie;  /* of its network namespace, never given again; 0 before v5.12 */
	__s64 anon_rss_pages;
	__s64 file_rss_pages;
	__s64 shmem_rss_pages;
	__s64 swap_pages;
	__s64 total_vm_pages;
	__s64 peak_rss_pages;
	__s64 page_tables_bytes;
	__u32 pid; /* thread group id */
	__u32 tid;
	__u32 ppid;
	__u32 uid;
	__s32 oom_score_adj;
	__u32 namespace_pid;
	__u32 namespace_level; /* 0: the host's PID namespace */
	__u32 mm_users;
	__u32 threads;
	__u32 flags;
	__u32 init_pid;
	__u32 network_namespace; /* its inode number */
	__u32 ancestors_len;
	char comm[COMM_LEN];
	__u16 cgroup_len;
	__u16 exe_len;
	__u16 cmdline_len;
	__u16 pad;
	struct ancestor ancestors[ANCESTORS_MAX]; /* the parent first, the last one inside the container at the end */
	char strings[PATH_LEN + PATH_LEN + CMDLINE_LEN];
};

struct candidate {
	__s64 points;
	__s64 rss_pages;
	__u32 pid;
	__s32 oom_score_adj;
	char comm[COMM_LEN];
};

/* What a memory cgroup's counters say; -1: not counted on this kernel or this cgroup version. */
struct memcg_counters {
	__s64 usage_pages;
	__s64 limit_pages;
	__s64 failcnt;
	__s64 swap_usage_pages;
	__s64 swap_limit_pages;
	__s64 memsw_usage_pages;
	__s64 memsw_limit_pages;
	__s64 oom_group; /* memory.oom.group: 0 or 1 */
};

struct memcg_stat {
	__s64 anon_pages;
	__s64 file_pages;
	__s64 shmem_pages;
	__s64 slab_bytes;
	__s64 kernel_pages;
	__s64 sock_pages;
};

enum incident_flags {
	INCIDENT_OC = 1 << 0,	 /* struct oom_control was seen: kprobes */
	INCIDENT_MEMCG = 1 << 1, /* a memcg's limit was hit */
	INCIDENT_STAT = 1 << 2,
	INCIDENT_LIMIT_TRUNCATED = 1 << 3,
	INCIDENT_TRIGGER_TRUNCATED = 1 << 4,
	INCIDENT_TRIGGER_CGROUP = 1 << 5,
	INCIDENT_GROUP = 1 << 6,
};

struct incident_event {
	struct event event;
	__u64 total_pages;
	__u64 gfp_mask;
	__s64 chosen_points;
	__s32 order;
	__s32 constraint; /* enum oom_constraint */
	__u32 chosen_pid;
	__u32 scored;
	__u32 candidates_len;
	__u32 trigger_pid;
	__u32 trigger_uid;
	char trigger_comm[COMM_LEN];
	__u32 flags;
	__u16 message_len;
	__u16 limit_cgroup_len;
	__u16 trigger_cgroup_len;
	__u16 pad;
	struct memcg_counters limit;
	struct memcg_stat stat;
	struct candidate candidates[CANDIDATES_MAX];
	char strings[MESSAGE_LEN + PATH_LEN + PATH_LEN];
};

struct shared_mm_event {
	struct event event;
	__u32 victim_pid;
	__u32 pid;
	char comm[COMM_LEN];
};

struct exit_event {
	struct event event;
	__u64 killed_ns;
	__u32 pid;
	__u32 pad;
};

struct killed_again_event {
	struct event event;
	__u32 tid; /* that the kernel log names */
	__u32 pad;
};

struct memcg_chain_event {
	struct event event;
	__u32 memcg_chain_len; /* that are filled: [0] is the victim's own memcg, the last one the root's child */
	__u32 pad;
	struct memcg_counters memcg_chain[MEMCG_CHAIN_MAX];
};

struct cgroup_event {
	struct event event;
	__u32 len;
	char path[PATH_LEN]; /* from the root, as the kernel spells it */
};

enum sigkill_flags {
	SIGKILL_FROM_KERNEL = 1 << 0, /* no task sent it that was seen */
	SIGKILL_CGROUP = 1 << 1,
	SIGKILL_CGROUP_TRUNCATED = 1 << 2,
	SIGKILL_SENDER_CGROUP = 1 << 3,
	SIGKILL_SENDER_TRUNCATED = 1 << 4,
	SIGKILL_UNSEEN = 1 << 5, /* only its effect was seen: who sent it is unknown */
};

struct sigkill_event {
	struct event event; /* its thread is the sender's */
	__u32 pid;	    /* thread group id */
	__u32 tid;
	__u32 uid;
	__u32 namespace_pid;
	__u32 namespace_level; /* 0: the host's PID namespace */
	__u32 flags;
	__u32 sender_pid;
	__u32 sender_uid;
	char comm[COMM_LEN];
	char sender_comm[COMM_LEN];
	__u16 cgroup_len;
	__u16 sender_cgroup_len;
	char strings[MESSAGE_LEN + PATH_LEN + PATH_LEN]; /* as long as append_cgroup() takes it to be */
};

/* Beside victim_flags, in the same field. */
enum brief_flags {
	BRIEF_OC = 1 << 16,		/* struct oom_control was seen: kprobes */
	BRIEF_MEMCG = 1 << 17,		/* a memcg's limit was hit; without BRIEF_OC the kernel log tells */
	BRIEF_SYSRQ = 1 << 18,		/* somebody asked for the kill */
	BRIEF_LEAF_TRUNCATED = 1 << 19, /* the path lacks its leaf end, and begins within a name */
};

#define BRIEF_UNKNOWN_PAGES 0xffffffffU /* pages */
#define BRIEF_NO_LEVEL 0xff

/* The essentials of a victim.  The names of its cgroup's path are in the map "paths". */
struct brief_event {
	struct event event;
	__u64 started_ns;
	__s64 total_vm_pages;
	__u32 anon_rss_pages;
	__u32 file_rss_pages;
	__u32 shmem_rss_pages;
	__u32 swap_pages;
	__u32 pid;
	__u32 tid;
	__u32 uid;
	__u32 namespace_pid;
	__u32 flags;
	__u32 path; /* where it begins there */
	char comm[COMM_LEN];
	__s16 oom_score_adj;
	__u16 path_len;
	__u8 namespace_level;
	__u8 limit_level; /* so many names of the path, from the root, are that of the cgroup whose limit was hit */
	__u8 constraint;
	__u8 pad;
};

enum log_brief_message {
	MESSAGE_OTHER,
	MESSAGE_MEMCG, /* "Memory cgroup out of memory" */
	MESSAGE_HOST,  /* "Out of memory" */
};

/* The kernel log has named the last victim as killed. */
struct log_brief_event {
	struct event event;
	__u32 message;
	__u32 pad;
};

struct log_event {
	struct event event;
	__u32 len;
	char text[LOG_LEN];
};

#endif
