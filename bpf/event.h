/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The events that the BPF programs write into the ring buffers and tracer/capture/wire.py decodes.
 *
 * Native byte order, natural alignment, no holes.  -1 in a signed field and 0 in an id mean "unknown".  Sizes are
 * in pages where the name says so, because user space knows the page size.  Strings of variable length follow the
 * fixed part in the order of their *_len fields, without separators.  A path is a list of names from the leaf to the
 * root, each terminated by a NUL: the order in which the kernel's trees can be walked.
 */
#ifndef OOMTRACE_EVENT_H
#define OOMTRACE_EVENT_H

/*
 * Incremented when an event or the meaning of a pinned map (tracer/capture/pins.py) changes, because a daemon of
 * another version may find them.
 */
#define EVENT_LAYOUT 3

#define COMM_LEN 16
#define CANDIDATES_MAX 10
#define MEMCG_CHAIN_MAX 16
#define NAME_LEN 256	 /* one name of a path: NAME_MAX and its NUL */
#define PATH_LEN 4096	 /* longer cgroup paths lose their leaf end, others their root end: *_TRUNCATED flags */
#define CMDLINE_LEN 1024 /* bytes kept of a command line */
#define LOG_LEN 1024	 /* LOG_LINE_MAX of printk */
#define ANCESTORS_MAX 8
#define MESSAGE_LEN 64

enum event_type {
	EVENT_VICTIM = 1,
	EVENT_INCIDENT = 2, /* sent before the first victim */
	EVENT_SHARED_MM = 3,
	EVENT_EXIT = 4,
	EVENT_MEMCG_CHAIN = 5,	 /* tracepoint mode only: the victim's memcg and its ancestors */
	EVENT_LOG = 6,		 /* tracepoint mode only: a kernel log line about this incident */
	EVENT_END = 7,		 /* no more victims or shared-mm processes; struct event alone */
	EVENT_CGROUP = 8,	 /* a memory cgroup was created; ring buffer "cgroups" */
	EVENT_SIGKILL = 9,	 /* a SIGKILL not sent by the OOM killer; ring buffer "sigkills" */
	EVENT_BRIEF = 10,	 /* replaces an EVENT_VICTIM that found no room; ring buffer "briefs" */
	EVENT_LOG_BRIEF = 11,	 /* replaces its EVENT_LOG */
	EVENT_KILLED_AGAIN = 12, /* a victim of an earlier incident is killed, and counted, again */
};

struct event {
	__u32 type;
	__u32 tid;	   /* of the thread in whose context it happened: the trigger */
	__u64 time_ns;	   /* CLOCK_BOOTTIME */
	__u64 incident_ns; /* start of the incident, which identifies it: the kernel runs one at a time (oom_lock);
			    * equal to time_ns if the start was not seen */
};

enum victim_flags {
	VICTIM_TASK = 1 << 0, /* the task could be read; otherwise only tid is valid */
	VICTIM_CMDLINE = 1 << 1,
	VICTIM_EXE = 1 << 2,
	VICTIM_CGROUP = 1 << 3,
	VICTIM_CGROUP_TRUNCATED = 1 << 4,
	VICTIM_EXE_TRUNCATED = 1 << 5,
	VICTIM_CMDLINE_TRUNCATED = 1 << 6,
	VICTIM_RSS_EXACT = 1 << 7,     /* includes the per-CPU parts, or this kernel has none */
	VICTIM_GROUP = 1 << 8,	       /* memory.oom.group is set in its cgroup or an ancestor */
	VICTIM_FORKED = 1 << 9,	       /* command line of an ancestor: no exec since fork */
	VICTIM_MARKED = 1 << 10,       /* tracepoint mode only: no SIGKILL seen; a kill if the kernel log says so */
	VICTIM_HOST_NETWORK = 1 << 11, /* in the network namespace of the host's init */
};

struct ancestor {
	__u32 pid;
	char comm[COMM_LEN];
};

struct victim_event {
	struct event event;
	__u64 started_ns;      /* CLOCK_BOOTTIME */
	__u64 init_started_ns; /* of its PID namespace's init; 0 in the host's PID namespace */
	__u64 network_cookie;  /* of its network namespace, never reused; 0 before v5.12 */
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
	struct ancestor ancestors[ANCESTORS_MAX]; /* the parent first, the outermost in the container last */
	char strings[PATH_LEN + PATH_LEN + CMDLINE_LEN];
};

struct candidate {
	__s64 points;
	__s64 rss_pages;
	__u32 pid;
	__s32 oom_score_adj;
	char comm[COMM_LEN];
};

/* A memory cgroup's counters; -1: not counted by this kernel or this cgroup version. */
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
	INCIDENT_OC = 1 << 0,	 /* struct oom_control was read: kprobes */
	INCIDENT_MEMCG = 1 << 1, /* the limit of a memcg was reached */
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
	__u32 tid; /* as in the kernel log */
	__u32 pad;
};

struct memcg_chain_event {
	struct event event;
	__u32 memcg_chain_len; /* entries; [0] is the victim's own memcg, the last a child of the root */
	__u32 pad;
	struct memcg_counters memcg_chain[MEMCG_CHAIN_MAX];
};

struct cgroup_event {
	struct event event;
	__u32 len;
	char path[PATH_LEN]; /* from the root, slash-separated, as from the kernel */
};

enum sigkill_flags {
	SIGKILL_FROM_KERNEL = 1 << 0, /* no sending task was seen */
	SIGKILL_CGROUP = 1 << 1,
	SIGKILL_CGROUP_TRUNCATED = 1 << 2,
	SIGKILL_SENDER_CGROUP = 1 << 3,
	SIGKILL_SENDER_TRUNCATED = 1 << 4,
	SIGKILL_UNSEEN = 1 << 5, /* only its effect was seen; sender unknown */
};

struct sigkill_event {
	struct event event; /* .tid is the sender's */
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
	char strings[MESSAGE_LEN + PATH_LEN + PATH_LEN]; /* the length that append_cgroup() assumes */
};

/* In the same field as victim_flags. */
enum brief_flags {
	BRIEF_OC = 1 << 16,		/* struct oom_control was read: kprobes */
	BRIEF_MEMCG = 1 << 17,		/* the limit of a memcg was reached; without BRIEF_OC see the kernel log */
	BRIEF_SYSRQ = 1 << 18,		/* requested with SysRq-f */
	BRIEF_LEAF_TRUNCATED = 1 << 19, /* the path lacks its leaf end and begins within a name */
};

#define BRIEF_UNKNOWN_PAGES 0xffffffffU /* pages */
#define BRIEF_NO_LEVEL 0xff

/* The main fields of a victim.  The names of its cgroup path are in the map "paths". */
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
	__u32 path; /* its offset in the map "paths" */
	char comm[COMM_LEN];
	__s16 oom_score_adj;
	__u16 path_len;
	__u8 namespace_level;
	__u8 limit_level; /* names, from the root, of the cgroup whose limit was reached */
	__u8 constraint;
	__u8 pad;
};

enum log_brief_message {
	MESSAGE_OTHER,
	MESSAGE_MEMCG, /* "Memory cgroup out of memory" */
	MESSAGE_HOST,  /* "Out of memory" */
};

/* The kernel log reports the last victim as killed. */
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
