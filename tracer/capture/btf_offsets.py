# SPDX-License-Identifier: Apache-2.0
"""Writes bpf/kernel.h with the running kernel's offsets, for bcc, which has no CO-RE.

With BTF the offsets are written into the declarations: each struct becomes a union of packed structs, one per field,
with padding up to the field's offset.  That needs no kernel headers, compiles in a third of the time, and does not
depend on a compiler's padding.  Without BTF the kernel's own headers replace kernel.h, and differences between kernels
are found in their text.
"""

import ctypes
import os
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tracer.linux import libbpf

_BLOCK = re.compile(r"^(struct|enum) (\w+) \{\n(.*?)^\};$", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\t(?P<type>.*?[ *])(?P<name>\w+)(?P<array>\[\d+\])?;$", re.MULTILINE)
_ENUMERATOR = re.compile(r"^\t(\w+),$", re.MULTILINE)

# BTF kinds, include/uapi/linux/btf.h
_PTR, _ARRAY, _STRUCT, _UNION, _ENUM = 2, 3, 4, 5, 6
_MODIFIERS = {8, 9, 10, 11, 18}
"""typedef, volatile, const, restrict, type_tag."""


class BtfMember(NamedTuple):
    offset: int
    """Bytes from the start of the outermost struct."""
    type_id: int


class Btf:
    """The running kernel's type information, read with libbpf; raises OSError if there is none."""

    def __init__(self) -> None:
        self._library = libbpf.library()
        self._btf: int | None = self._library.btf__load_vmlinux_btf()
        if not self._btf:
            raise libbpf.last_error()

    def _head(self, type_id: int) -> tuple[int, int, int, int, int]:
        """(address behind the header, kind, vlen, size or type, kind_flag) of a struct btf_type."""
        address: int = self._library.btf__type_by_id(self._btf, type_id)
        _name, info, size = struct.unpack("=III", ctypes.string_at(address, 12))
        return address + 12, info >> 24 & 0x1F, info & 0xFFFF, size, info >> 31

    def _find(self, name: str, kind: int) -> int:
        return max(0, int(self._library.btf__find_by_name_kind(self._btf, name.encode(), kind)))

    def size(self, name: str) -> int:
        type_id = self._find(name, _STRUCT)
        return int(self._library.btf__resolve_size(self._btf, type_id)) if type_id else 0

    def member(self, struct_name: str, name: str) -> BtfMember | None:
        """A field of a struct, also of an anonymous struct or union in it; None if there is none."""
        type_id = self._find(struct_name, _STRUCT)
        return self._member(type_id, name, 0) if type_id else None

    def _member(self, type_id: int, name: str, base: int) -> BtfMember | None:
        address, _kind, count, _size, kind_flag = self._head(type_id)
        for raw in struct.iter_unpack("=III", ctypes.string_at(address, 12 * count)):
            name_offset, member_type, bits = raw
            offset = base + (bits & 0xFFFFFF if kind_flag else bits) // 8
            found = self._library.btf__name_by_offset(self._btf, name_offset).decode()
            if found == name:
                return BtfMember(offset, member_type)
            if not found and self._head(member_type)[1] in (_STRUCT, _UNION):
                inner = self._member(member_type, name, offset)
                if inner is not None:
                    return inner
        return None

    def kind(self, type_id: int) -> int:
        while True:
            _address, kind, _count, inner, _flag = self._head(type_id)
            if kind not in _MODIFIERS:
                return kind
            type_id = inner

    def type_size(self, type_id: int) -> int:
        return int(self._library.btf__resolve_size(self._btf, type_id))

    def enumerator(self, enum: str, name: str) -> int | None:
        type_id = self._find(enum, _ENUM)
        if not type_id:
            return None
        address, _kind, count, _size, _flag = self._head(type_id)
        for name_offset, value in struct.iter_unpack("=Ii", ctypes.string_at(address, 8 * count)):
            if self._library.btf__name_by_offset(self._btf, name_offset).decode() == name:
                return int(value)
        return None


class Declaration(NamedTuple):
    """A declaration in kernel.h; ``body`` has a struct's fields or an enum's enumerators, as written."""

    keyword: str
    name: str
    body: str


def parse_declarations(kernel_h: str) -> Iterator[Declaration]:
    for match in _BLOCK.finditer(kernel_h):
        yield Declaration(match[1], match[2], match[3])


def types_from_btf(kernel_h: str, btf: Btf) -> str:
    """kernel.h with the offsets of ``btf``, and the macros EXISTS_*, SIZE_*, OFFSET_*, ENUM_*."""
    macros: list[str] = []
    placed = kernel_h
    for block in parse_declarations(kernel_h):
        if block.keyword == "enum":
            macros.extend(_enum_macros(block, btf))
            continue
        fields = []
        real_name = block.name.split("___")[0]
        macros.append(f"#define SIZE_{block.name} {btf.size(real_name)}")
        for number, field in enumerate(_FIELD.finditer(block.body)):
            member = btf.member(real_name, field["name"])
            if member is not None and not _has_declared_kind(field, btf.kind(member.type_id)):
                member = None
            offset = member.offset if member is not None else 0
            key = f"{block.name}_{field['name']}"
            macros.append(f"#define EXISTS_{key} {int(member is not None)}")
            macros.append(f"#define OFFSET_{key} {offset}")
            macros.append(f"#define SIZE_{key} {btf.type_size(member.type_id) if member is not None else 0}")
            before = f"char before_{number}_[{offset}]; " if offset else ""
            fields.append(f"\tstruct {{ {before}{field[0].strip()} }} __attribute__((packed));\n")
        union = f"struct {block.name} {{ union {{\n{''.join(fields)}}}; }};"
        placed = placed.replace(f"struct {block.name} {{\n{block.body}}};", union)
    placed = re.sub(r"^#pragma clang attribute .*$", "", placed, flags=re.MULTILINE)
    return "\n".join([placed, *macros, ""])


def _enum_macros(block: Declaration, btf: Btf) -> Iterator[str]:
    for name in _ENUMERATOR.findall(block.body):
        value = btf.enumerator(block.name, name)
        yield f"#define EXISTS_ENUM_{name} {int(value is not None)}"
        yield f"#define ENUM_{name} {value or 0}"


def _has_declared_kind(field: re.Match[str], kind: int) -> bool:
    """Whether the kernel's field is a pointer, an array or neither, as declared; this selects a struct's variant."""
    if field["array"]:
        return kind == _ARRAY
    if field["type"].rstrip().endswith("*"):
        return kind == _PTR
    return kind not in (_ARRAY, _PTR)


_HEADER_FEATURES = {
    # what bpf/*.h queries with EXISTS: the header, and a pattern in its text if the answer is yes
    "kernfs_node___parent": ("include/linux/kernfs.h", r"\b__parent;"),
    "mm_struct___struct_rss_stat": ("include/linux/mm_types*.h", r"struct mm_rss_stat rss_stat;"),
    "page_counter_track_failcnt": ("include/linux/page_counter.h", r"\btrack_failcnt;"),
    "mem_cgroup___array_vmstats": ("include/linux/memcontrol.h", r"atomic_long_t\s+vmstats\["),
    "trace_event_raw_sched_process_exit_group_dead": ("include/trace/events/sched.h", r"\bbool group_dead\b"),
}


_HEADER_MACROS = """
#ifndef __parent
#if !EXISTS_kernfs_node___parent
#define __parent parent
#endif
#endif
#define mm_struct___struct mm_struct
#define mm_struct___array mm_struct
#define mem_cgroup___array mem_cgroup
#define mem_cgroup___struct mem_cgroup
#define mem_cgroup___pointer mem_cgroup
#define EXISTS_mem_cgroup_css 1
#define EXISTS_spinlock_rlock 1
#define EXISTS_qspinlock_val 1
#define EXISTS_memcg_vmstats_state 0
#define EXISTS_mem_cgroup___pointer_vmstats 0
#define OFFSET_memcg_vmstats_state 0
#define SIZE_memcg_vmstats_state 0
#define SIZE_percpu_counter sizeof(struct percpu_counter)
#define OFFSET_percpu_counter_count __builtin_offsetof(struct percpu_counter, count)
#define OFFSET_percpu_counter_counters __builtin_offsetof(struct percpu_counter, counters)
#if EXISTS_mm_struct___struct_rss_stat
#define OFFSET_bpf_array_pptrs 0
#else
#define OFFSET_bpf_array_pptrs __builtin_offsetof(struct bpf_array, pptrs)
#endif
#define SIZE_upid sizeof(struct upid)
#define OFFSET_upid_nr __builtin_offsetof(struct upid, nr)
#define OFFSET_upid_ns __builtin_offsetof(struct upid, ns)
#define EXISTS_ENUM_memory_cgrp_id 1
#define ENUM_memory_cgrp_id memory_cgrp_id
#define ENUM_NR_ANON_MAPPED NR_ANON_MAPPED
#define ENUM_NR_FILE_PAGES NR_FILE_PAGES
#define ENUM_NR_SHMEM NR_SHMEM
#define ENUM_NR_DIRTIED NR_DIRTIED
#define ENUM_NR_SLAB_RECLAIMABLE_B NR_SLAB_RECLAIMABLE_B
#define ENUM_NR_SLAB_UNRECLAIMABLE_B NR_SLAB_UNRECLAIMABLE_B
#define ENUM_MEMCG_SOCK MEMCG_SOCK
#define ENUM_MEMCG_NR_STAT MEMCG_NR_STAT
"""


def types_from_headers(source: str) -> str:
    """The macros for the kernel's own headers under ``source`` (/lib/modules/RELEASE/build).

    struct memcg_vmstats and struct mount are private to the kernel's source, so fields that need them are unknown.
    """
    macros = []
    for key, (header, pattern) in _HEADER_FEATURES.items():
        macros.append(f"#define EXISTS_{key} {int(re.search(pattern, _read_header(source, header)) is not None)}")
    kmem = re.search(r"\bMEMCG_KMEM,", _read_header(source, "include/linux/memcontrol.h")) is not None
    macros.append(f"#define EXISTS_ENUM_MEMCG_KMEM {int(kmem)}")
    macros.append(f"#define ENUM_MEMCG_KMEM {'MEMCG_KMEM' if kmem else 0}")
    return "\n".join([*macros, _HEADER_MACROS])


def _read_header(source: str, pattern: str) -> str:
    """The text of the headers that match; Debian has some in a second directory, which the Makefile includes."""
    directories = [source]
    try:
        with open(f"{source}/Makefile", encoding="utf-8", errors="replace") as makefile:
            directories += re.findall(r"^include (\S+)/Makefile$", makefile.read(), re.MULTILINE)
    except OSError:
        pass
    text = []
    folder, name = os.path.split(pattern)
    matches = re.compile(re.escape(name).replace(r"\*", ".*")).fullmatch
    for directory in directories:
        try:
            names = sorted(os.listdir(f"{directory}/{folder}"))
        except OSError:
            continue
        for found in filter(matches, names):
            with open(f"{directory}/{folder}/{found}", encoding="utf-8", errors="replace") as header:
                text.append(header.read())
    return "\n".join(text)
