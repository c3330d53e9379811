# SPDX-License-Identifier: Apache-2.0
"""The maps of a tracer's programs, by name: what is in them, asked of the kernel."""

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tracer.linux import libbpf

MAP_INFO = struct.Struct("=6I16s")
"""``struct bpf_map_info`` up to the name; include/uapi/linux/bpf.h."""
PROG_INFO = struct.Struct("=2I8s2I3Q2IQ")
"""``struct bpf_prog_info`` up to ``map_ids``."""
MAPS_MAX = 64


class Map(NamedTuple):
    """A map; its keys are integers."""

    type: int
    capacity: int
    keys: set[int]


def of(tracer: int) -> dict[str, Map]:
    """All maps that the programs of this process use."""
    found: dict[str, Map] = {}
    for number in {each for program in _programs(tracer) for each in _map_ids(program)}:
        descriptor = _open("bpf_map_get_fd_by_id", number)
        kind, _id, key_size, _size, capacity, _flags, name = MAP_INFO.unpack(_info(descriptor, bytes(MAP_INFO.size)))
        found[name.rstrip(b"\0").decode()] = Map(kind, capacity, set(_keys(descriptor, key_size)))
        os.close(descriptor)
    return found


@contextlib.contextmanager
def opened(tracer: int, wanted: str) -> Iterator[int]:
    """The descriptor of one of them."""
    for number in {each for program in _programs(tracer) for each in _map_ids(program)}:
        descriptor = _open("bpf_map_get_fd_by_id", number)
        try:
            if MAP_INFO.unpack(_info(descriptor, bytes(MAP_INFO.size)))[-1].rstrip(b"\0").decode() == wanted:
                yield descriptor
                return
        finally:
            os.close(descriptor)
    raise LookupError(wanted)


def read(descriptor: int, key: int, size: int) -> bytes:
    """The value of this size that a map has for a number of 32 bits."""
    value = ctypes.create_string_buffer(size)
    if libbpf.library()["bpf_map_lookup_elem"](descriptor, key.to_bytes(4, sys.byteorder), value):
        raise libbpf.last_error()
    return value.raw


def write(descriptor: int, key: int, value: bytes) -> None:
    """Replace it."""
    flags = ctypes.c_uint64(0)
    if libbpf.library()["bpf_map_update_elem"](descriptor, key.to_bytes(4, sys.byteorder), value, flags):
        raise libbpf.last_error()


def _programs(tracer: int) -> set[int]:
    """The ids of the programs whose links the process holds."""
    found = set()
    for path in Path(f"/proc/{tracer}/fdinfo").iterdir():
        for line in path.read_text().splitlines():
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
