/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Differences between the two ways to compile the programs: sections, maps, and queries about the running kernel.
 *
 * core: clang and libbpf.  Kernel types are those of kernel.h, relocated at load time (CO-RE).
 * bcc:  OOMTRACE_BCC.  The daemon creates the maps beforehand and passes their descriptors as MAP_FD_<name>.
 *       EXISTS_<type>_<field>, SIZE_<...>, ENUM_<...> and settings are macros in kernel_bcc.h, which
 *       tracer/capture/btf_offsets.py writes.  With OOMTRACE_HEADERS types come from the running kernel's headers;
 *       otherwise kernel_bcc.h has kernel.h's types at this kernel's offsets.
 */
#ifndef OOMTRACE_ENGINE_H
#define OOMTRACE_ENGINE_H

#ifdef OOMTRACE_BCC

#ifdef OOMTRACE_HEADERS
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/cred.h>
#include <linux/mm_types.h>
#include <linux/memcontrol.h>
#include <linux/oom.h>
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/kernfs.h>
#include <linux/nsproxy.h>
#include <linux/signal_types.h>
#include <linux/cgroup.h>
#include <linux/percpu_counter.h>
#undef READ
#endif
#include "kernel_bcc.h"
#if defined(OOMTRACE_HEADERS) && !EXISTS_mm_struct___struct_rss_stat
#include <linux/bpf.h> /* struct bpf_array; takes a second to compile */
#undef READ
#endif

#undef SEC
#define SEC(name)
#define setting(name) SETTING_##name
#define MAP(name) bpf_pseudo_fd(1, MAP_FD_##name)
#define map_lookup(map, key) bpf_map_lookup_elem_(MAP(map), key)
#define map_update(map, key, value, flags) bpf_map_update_elem_(MAP(map), key, value, flags)
#define map_delete(map, key) bpf_map_delete_elem_(MAP(map), key)
#define ringbuf_output(map, data, size, flags) bpf_ringbuf_output((void *)MAP(map), data, size, flags)
#define ringbuf_query(map, what) bpf_ringbuf_query((void *)MAP(map), what)
#define map_lookup_percpu(map, key, cpu) bpf_map_lookup_percpu_elem((void *)MAP(map), key, cpu)
#define DEFINE_MAP(map_name, map_type, key_type, value_type, entries)
#define DEFINE_MAP_FLAGS(map_name, map_type, key_type, value_type, entries, flags)
#define DEFINE_RING(map_name, bytes)

#define verified_once inline_always /* bcc cannot load functions that a program calls */

#define EXISTS(type, field) EXISTS_##type##_##field
#define EXISTS_ENUM(type, name) EXISTS_ENUM_##name
#define ENUM(type, name) ENUM_##name
#define SIZE(type) SIZE_##type
#define OFFSET(type, field) OFFSET_##type##_##field
#define FIELD_SIZE(type, field) SIZE_##type##_##field

#else /* core */

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "kernel.h"

typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
#define true 1
#define false 0

#define setting(name) settings.name
#define map_lookup(map, key) bpf_map_lookup_elem(&map, key)
#define map_update(map, key, value, flags) bpf_map_update_elem(&map, key, value, flags)
#define map_delete(map, key) bpf_map_delete_elem(&map, key)
#define ringbuf_output(map, data, size, flags) bpf_ringbuf_output(&map, data, size, flags)
#define ringbuf_query(map, what) bpf_ringbuf_query(&map, what)
#define map_lookup_percpu(map, key, cpu) bpf_map_lookup_percpu_elem(&map, key, cpu)
#define MAP(name) &name
#define DEFINE_MAP_FLAGS(map_name, map_type, key_type, value_type, entries, flags)                                     \
	struct {                                                                                                       \
		__uint(type, map_type);                                                                                \
		__type(key, key_type);                                                                                 \
		__type(value, value_type);                                                                             \
		__uint(max_entries, entries);                                                                          \
		__uint(map_flags, flags);                                                                              \
	} map_name SEC(".maps")
#define DEFINE_MAP(map_name, map_type, key_type, value_type, entries)                                                  \
	DEFINE_MAP_FLAGS(map_name, map_type, key_type, value_type, entries, 0)
#define DEFINE_RING(map_name, bytes)                                                                                   \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_RINGBUF);                                                                    \
		__uint(max_entries, bytes);                                                                            \
	} map_name SEC(".maps")

/*
 * A global function: the verifier checks it once, for any arguments, and not again for each state of its callers.
 * Arguments and the returned value are numbers, kernel addresses included, and the function looks up its map values
 * itself: pointers can be passed only since Linux commit e5069b9c23b3 ("bpf: Support pointers in global func args") (in
 * v5.12).
 */
#define verified_once __attribute__((noinline))

#define EXISTS(type, field) bpf_core_field_exists(((struct type *)0)->field)
#define EXISTS_ENUM(type, name) bpf_core_enum_value_exists(enum type, name)
#define ENUM(type, name) bpf_core_enum_value(enum type, name)
#define SIZE(type) bpf_core_type_size(struct type)
#define OFFSET(type, field) __builtin_preserve_field_info(((struct type *)0)->field, BPF_FIELD_BYTE_OFFSET)
#define FIELD_SIZE(type, field) bpf_core_field_size(((struct type *)0)->field)

/* Written by tracer/capture/engine_core.py before the programs are loaded. */
const volatile struct {
	u64 stats_index; /* address of mem_cgroup_stats_index in /proc/kallsyms, or 0 */
	u32 cpus;	 /* possible CPUs; a constant, so that loops over them are verified for this number only */
	u32 kprobes;	 /* whether the functions of the OOM path are hooked */
	u32 stats_index_size;
	u32 sigkill; /* enum sigkill_scope */
} settings SEC(".rodata.settings");

#endif

#ifndef OOMTRACE_HEADERS
/* Registers at a function's entry, in the order of the kernel's struct; not every architecture's BTF has this name. */
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
struct pt_regs {
	unsigned long regs[31];
	unsigned long sp;
	unsigned long pc;
	unsigned long pstate;
};
#else
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8;
	unsigned long ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};
#endif
#endif

#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
#define ARG1(ctx) ((ctx)->regs[0])
#define ARG2(ctx) ((ctx)->regs[1])
#define RETURNED(ctx) ((ctx)->regs[0])
#else
#define ARG1(ctx) ((ctx)->di)
#define ARG2(ctx) ((ctx)->si)
#define RETURNED(ctx) ((ctx)->ax)
#endif

#define inline_always static inline __attribute__((always_inline))

/* The barriers keep the compiler from optimizing away the bound, which the verifier needs to see. */
inline_always u64 clamp_to(u64 value, u64 bound)
{
	asm volatile("" : "+r"(value));
	if (value > bound)
		value = bound;
	asm volatile("" : "+r"(value)); /* no use of a copy from before the bound */
	return value;
}

/* One field of a kernel structure; zero if the memory cannot be read. */
#define READ(pointer, field)                                                                                           \
	({                                                                                                             \
		__typeof__((pointer)->field) value_;                                                                   \
		__builtin_memset(&value_, 0, sizeof(value_));                                                          \
		bpf_probe_read_kernel(&value_, sizeof(value_), &(pointer)->field);                                     \
		value_;                                                                                                \
	})

/* The same at a computed address. */
#define READ_AT(type, address)                                                                                         \
	({                                                                                                             \
		type value_ = 0;                                                                                       \
		bpf_probe_read_kernel(&value_, sizeof(value_), (const void *)(address));                               \
		value_;                                                                                                \
	})

#endif
