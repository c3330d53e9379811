# SPDX-License-Identifier: Apache-2.0
"""Reads and writes the maps of a daemon's BPF programs, through the kernel."""

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.harness.vanishing import read_existing
from tracer.linux import libbpf

MAP_INFO = struct.Struct("=6I16s")
"""``struct bpf_map_info`` up to the name; include/uapi/linux/bpf.h."""
PROG_INFO = struct.Struct("=2I8s2I3Q2IQ")
"""``struct bpf_prog_info`` up to ``map_ids``."""
MAPS_MAX = 64


class Map(NamedTuple):
    """A map with integer keys."""

    type: int
    capacity: int
    keys: set[int]


def of(pid: int) -> dict[str, Map]:
    """Name -> map, of all programs of this process."""
    found: dict[str, Map] = {}
    for number in {each for program in _programs(pid) for each in _map_ids(program)}:
        descriptor = _open("bpf_map_get_fd_by_id", number)
        kind, _id, key_size, _size, capacity, _flags, name = MAP_INFO.unpack(_info(descriptor, bytes(MAP_INFO.size)))
        found[name.rstrip(b"\0").decode()] = Map(kind, capacity, set(_keys(descriptor, key_size)))
        os.close(descriptor)
    return found


@contextlib.contextmanager
def opened(pid: int, name: str) -> Iterator[int]:
    """Descriptor of a map.

    Raises LookupError if no program of the process uses it.
    """
    for number in {each for program in _programs(pid) for each in _map_ids(program)}:
        descriptor = _open("bpf_map_get_fd_by_id", number)
        try:
            if MAP_INFO.unpack(_info(descriptor, bytes(MAP_INFO.size)))[-1].rstrip(b"\0").decode() == name:
                yield descriptor
                return
        finally:
            os.close(descriptor)
    raise LookupError(name)


def read(descriptor: int, key: int, size: int) -> bytes:
    """The value, of this size, for a 32-bit key.

    Raises OSError.
    """
    value = ctypes.create_string_buffer(size)
    if libbpf.library()["bpf_map_lookup_elem"](descriptor, key.to_bytes(4, sys.byteorder), value):
        raise libbpf.last_error()
    return value.raw


def write(descriptor: int, key: int, value: bytes) -> None:
    """Replace the value for a 32-bit key.

    Raises OSError.
    """
    flags = ctypes.c_uint64(0)
    if libbpf.library()["bpf_map_update_elem"](descriptor, key.to_bytes(4, sys.byteorder), value, flags):
        raise libbpf.last_error()


def _programs(pid: int) -> set[int]:
    """Ids of the programs whose links the process holds."""
    found = set()
    for text in read_existing(Path(f"/proc/{pid}/fdinfo").iterdir()):
        for line in text.splitlines():
            if line.startswith("prog_id:"):
                found.add(int(line.split()[1]))
    return found


def _map_ids(program: int) -> list[int]:
    ids = (ctypes.c_uint32 * MAPS_MAX)()
    asked = PROG_INFO.pack(*(0, 0, bytes(8), 0, 0, 0, 0, 0, 0), MAPS_MAX, ctypes.addressof(ids))
    descriptor = _open("bpf_prog_get_fd_by_id", program)
    try:
        *_others, count, _address = PROG_INFO.unpack(_info(descriptor, asked))
    finally:
        os.close(descriptor)
    return ids[:count]


def _open(function: str, number: int) -> int:
    descriptor: int = libbpf.library()[function](number)
    if descriptor < 0:
        raise libbpf.last_error()
    return descriptor


def _info(descriptor: int, asked: bytes) -> bytes:
    raw, size = ctypes.create_string_buffer(asked, len(asked)), ctypes.c_uint32(len(asked))
    if libbpf.library()["bpf_obj_get_info_by_fd"](descriptor, raw, ctypes.byref(size)):
        raise libbpf.last_error()
    return raw.raw


def _keys(descriptor: int, size: int) -> Iterator[int]:
    key = ctypes.create_string_buffer(size)
    before = None
    while libbpf.library()["bpf_map_get_next_key"](descriptor, before, key) == 0:
        yield int.from_bytes(key.raw, "little")
        before = ctypes.create_string_buffer(key.raw, size)
