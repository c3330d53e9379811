/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel types that the programs read, with only the fields that they read.
 *
 * core: libbpf relocates every access to the field's offset in the running kernel (preserve_access_index).
 * bcc:  tracer/capture/btf_offsets.py rewrites this file with the running kernel's offsets, so the syntax stays simple:
 *       one field per line, no nested structs.  Without BTF the kernel's own headers replace it.
 * A name with ___ is another variant of the struct before it, in other kernels.
 */
#ifndef OOMTRACE_KERNEL_H
#define OOMTRACE_KERNEL_H

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	long counter;
} atomic_long_t;

typedef struct {
	unsigned int val;
} kuid_t;

enum oom_constraint {
	CONSTRAINT_NONE,
};

enum cgroup_subsys_id {
	memory_cgrp_id,
};

enum node_stat_item {
	NR_SLAB_RECLAIMABLE_B,
	NR_SLAB_UNRECLAIMABLE_B,
	NR_ANON_MAPPED,
	NR_FILE_PAGES,
	NR_SHMEM,
	NR_DIRTIED,
};

enum memcg_stat_item {
	MEMCG_SOCK,
	MEMCG_KMEM,
	MEMCG_NR_STAT,
};

struct pid_namespace {
	struct task_struct *child_reaper;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct kernfs_node {
	struct kernfs_node *parent;
	struct kernfs_node *__parent;
	const char *name;
	unsigned long long id;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
	struct cgroup_subsys_state *subsys[1];
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct css_set {
	struct cgroup_subsys_state *subsys[1];
};

struct page_counter {
	atomic_long_t usage;
	unsigned long failcnt;
	unsigned long max;
	_Bool track_failcnt;
};

struct memcg_vmstats {
	long state[1];
};

struct mem_cgroup {
	struct cgroup_subsys_state css;
	struct page_counter memory;
	struct page_counter memsw;
	struct page_counter swap;
	struct page_counter kmem;
	_Bool oom_group;
};

struct mem_cgroup___array {
	atomic_long_t vmstats[1];
};

struct mem_cgroup___struct {
	struct memcg_vmstats vmstats;
};

struct mem_cgroup___pointer {
	struct memcg_vmstats *vmstats;
};

struct oom_control {
	struct mem_cgroup *memcg;
	unsigned int gfp_mask;
	int order;
	unsigned long totalpages;
	struct task_struct *chosen;
	long chosen_points;
	enum oom_constraint constraint;
};

struct percpu_counter {
	long long count;
	int *counters;
};

struct mm_rss_stat {
	atomic_long_t count[1];
};

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	struct path f_path;
};

struct mm_struct {
	atomic_t mm_users;
	unsigned long total_vm;
	unsigned long hiwater_rss;
	atomic_long_t pgtables_bytes;
	unsigned long arg_start;
	unsigned long arg_end;
	struct file *exe_file;
};

struct mm_struct___struct {
	struct mm_rss_stat rss_stat;
};

struct mm_struct___array {
	struct percpu_counter rss_stat[4];
};

struct kernel_siginfo {
	int si_code;
};

struct signal_struct {
	atomic_t live;
	int group_exit_code;
	int nr_threads;
	short oom_score_adj;
	struct pid *pids[2];
};

struct cred {
	kuid_t uid;
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
	unsigned long long net_cookie;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
	struct net *net_ns;
};

struct qspinlock {
	atomic_t val;
};

struct raw_spinlock {
	struct qspinlock raw_lock;
};

struct spinlock {
	struct raw_spinlock rlock;
};

struct task_struct {
	void *stack;
	unsigned int flags;
	int exit_code;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	unsigned long long start_boottime;
	const struct cred *real_cred;
	char comm[16];
	struct signal_struct *signal;
	struct css_set *cgroups;
	struct nsproxy *nsproxy;
	struct mm_struct *mm;
	struct spinlock alloc_lock;
};

struct trace_event_raw_sched_process_exit {
	_Bool group_dead;
};

struct bpf_array {
	void *pptrs[1];
};

#pragma clang attribute pop

#endif
