/* SPDX-License-Identifier: GPL-2.0 */
/* Paths of cgroups and executables, from the leaf: names, each ended by a NUL. */
#ifndef OOMTRACE_PATH_H
#define OOMTRACE_PATH_H

#include "engine.h"
#include "event.h"

/* As many names of about 60 bytes as PATH_LEN has room for; deeper paths are truncated and flagged. */
#define DEPTH_MAX 64 /* a power of two */
/* The root of a deeper path is not searched, so the path is unknown: the verifier checks each iteration. */
#define WALK_MAX 128
#define EXE_DEPTH_MAX 40
/* The largest offset of a path in its buffer: behind another one. */
#define START_MAX (MESSAGE_LEN + PATH_LEN)

/*
 * False with CONFIG_MEMCG=n.  Functions that are verified once and use struct mem_cgroup return early then: the
 * verifier would reject accesses to fields that the kernel lacks, though no caller gets that far.
 */
inline_always bool has_memory_controller(void)
{
	return EXISTS_ENUM(cgroup_subsys_id, memory_cgrp_id);
}

inline_always struct cgroup_subsys_state *memcg_css(struct task_struct *task)
{
	struct css_set *cgroups;

	if (!has_memory_controller())
		return 0;
	cgroups = READ(task, cgroups);
	return READ_AT(struct cgroup_subsys_state *,
		       (char *)&cgroups->subsys + ENUM(cgroup_subsys_id, memory_cgrp_id) * sizeof(void *));
}

/* __parent since Linux commit 633488947ef6 ("kernfs: Use RCU to access kernfs_node::parent.") (in v6.15). */
inline_always struct kernfs_node *kernfs_parent(struct kernfs_node *kn)
{
	if (EXISTS(kernfs_node, __parent))
		return READ(kn, __parent);
	return READ(kn, parent);
}

/*
 * Append a name to the path at strings, whose length is *len.  Returns false if there is no room or the name cannot be
 * read.
 *
 * *len is in a map and is read again for each name, so its value is unknown to the verifier.  Otherwise each iteration
 * of the loops below has a state of its own, and the verifier checks all combinations.
 */
inline_always bool append_name(char *strings, u64 start, volatile __u16 *len, const void *name)
{
	u64 at = *len;
	long copied;

	if (at > PATH_LEN - NAME_LEN)
		return false;
	copied = bpf_probe_read_kernel_str(strings + clamp_to(start, START_MAX) + at, NAME_LEN, name);
	if (copied <= 0)
		return false;
	*len = at + copied;
	return true;
}

struct walk {
	struct kernfs_node *nodes[DEPTH_MAX]; /* those nearest to the root; indexed by depth below the leaf, modulo */
	u32 depth;
	u32 kept; /* nodes, from the root, that have room */
	u32 bytes;
};

enum path_state {
	PATH_COMPLETE,
	PATH_TRUNCATED, /* without its leaf end */
	PATH_UNKNOWN,
};

/*
 * Append the path of css's cgroup at start.  A path that is too long keeps its root end, which identifies the
 * container: a container chooses all names below its own cgroup.
 *
 * Results of an iteration are in walk, a map value, and are read again in the next one, as in append_name().
 */
inline_always enum path_state append_cgroup(volatile struct walk *walk, char *strings, u64 start,
					    struct cgroup_subsys_state *css, volatile __u16 *len)
{
	struct cgroup *cgroup = READ(css, cgroup);
	struct kernfs_node *kn = READ(cgroup, kn);
	long copied;
	u32 i;

	*len = 0;
	walk->depth = walk->kept = walk->bytes = 0;
	for (i = 0; i < WALK_MAX; i++) {
		struct kernfs_node *parent = kernfs_parent(kn);

		if (!parent)
			break;
		walk->nodes[i % DEPTH_MAX] = kn;
		walk->depth = i + 1;
		kn = parent;
	}
	if (!kn || kernfs_parent(kn))
		return PATH_UNKNOWN;
	for (i = 1; i <= DEPTH_MAX; i++) {
		u32 depth = walk->depth;

		if (i > depth)
			break;
		kn = walk->nodes[(depth - i) % DEPTH_MAX];
		copied = bpf_probe_read_kernel_str(strings + clamp_to(start, START_MAX), NAME_LEN, READ(kn, name));
		if (copied <= 0 || walk->bytes + copied > PATH_LEN - NAME_LEN)
			break;
		walk->bytes += copied;
		walk->kept = i;
	}
	for (i = 0; i < DEPTH_MAX; i++) {
		u32 kept = walk->kept;

		if (i >= kept)
			break;
		kn = walk->nodes[(walk->depth - kept + i) % DEPTH_MAX];
		if (!append_name(strings, start, len, READ(kn, name))) {
			*len = 0;
			return PATH_UNKNOWN;
		}
	}
	if (walk->kept == walk->depth)
		return PATH_COMPLETE;
	return walk->kept ? PATH_TRUNCATED : PATH_UNKNOWN;
}

/* An event's flags for a path: known, and truncated. */
inline_always u32 path_flags(enum path_state state, u32 known, u32 truncated)
{
	return state == PATH_COMPLETE ? known : state == PATH_TRUNCATED ? known | truncated : truncated;
}

#ifndef OOMTRACE_HEADERS /* struct mount is private to the kernel's fs/ */
/* The suffix that d_path() adds to a file in no directory, behind the only name of the path at start. */
inline_always void append_deleted(char *strings, u64 start, volatile __u16 *len)
{
	const char deleted[] = " (deleted)";
	u64 end = *len - 1;
	long copied;

	if (end > PATH_LEN - NAME_LEN)
		return;
	copied = bpf_probe_read_kernel_str(strings + clamp_to(start, START_MAX) + end, sizeof(deleted), deleted);
	if (copied > 0)
		*len = end + copied;
}

/*
 * The executable's path up to the root of its mount namespace, as processes inside see it.  A dentry that is its own
 * parent and not the root of its mount is from memfd_create(2); a path below such a dentry is not reachable from its
 * mount.
 */
inline_always bool append_exe(char *strings, u64 start, struct mm_struct *mm, volatile __u16 *len)
{
	struct file *file = READ(mm, exe_file);
	struct dentry *dentry = READ(file, f_path.dentry);
	struct vfsmount *vfsmount = READ(file, f_path.mnt);
	struct mount *mount = (struct mount *)((char *)vfsmount - OFFSET(mount, mnt));
	int i;

	*len = 0;
	for (i = 0; file && i < EXE_DEPTH_MAX; i++) {
		if (dentry == READ(mount, mnt.mnt_root)) {
			struct mount *parent = READ(mount, mnt_parent);

			if (parent == mount)
				return true;
			dentry = READ(mount, mnt_mountpoint);
			mount = parent;
		} else {
			struct dentry *parent = READ(dentry, d_parent);

			if (parent == dentry && i)
				return false;
			if (!append_name(strings, start, len, READ(dentry, d_name.name)))
				return false;
			if (parent == dentry) {
				append_deleted(strings, start, len);
				return true;
			}
			dentry = parent;
		}
	}
	return !file;
}
#endif

#endif
