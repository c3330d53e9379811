# SPDX-License-Identifier: Apache-2.0
"""Constants and structs of the kernel's ABI in Python match its headers."""

import platform
from pathlib import Path
from typing import Any

import pytest

from tests.harness.compiler import evaluate
from tracer.capture import attach, pins, programs, ringbuf
from tracer.linux import bpffs

HEADERS = """
#include <asm/unistd.h>
#include <linux/bpf.h>
#include <linux/magic.h>
#include <linux/perf_event.h>
"""

NUMBERS: dict[str, Any] = {
    "BPF_PERF_EVENT": attach._BPF_PERF_EVENT,
    "PERF_FLAG_FD_CLOEXEC": attach._PERF_FLAG_FD_CLOEXEC,
    "PERF_EVENT_IOC_ENABLE": attach._PERF_EVENT_IOC_ENABLE,
    "PERF_EVENT_IOC_SET_BPF": attach._PERF_EVENT_IOC_SET_BPF,
    "__NR_perf_event_open": attach._PERF_EVENT_OPEN[platform.machine()],
    "BPF_FS_MAGIC": bpffs.MAGIC,
    "BPF_MAP_TYPE_ARRAY": pins._MAP_TYPES["counters"],
    "BPF_MAP_TYPE_HASH": pins._MAP_TYPES["cmdlines"],
    "BPF_MAP_TYPE_LRU_HASH": programs._MAP_LRU_HASH,
    "BPF_MAP_TYPE_RINGBUF": pins._MAP_TYPES["events"],
    "BPF_RINGBUF_BUSY_BIT": ringbuf.BUSY,
    "BPF_RINGBUF_DISCARD_BIT": ringbuf.DISCARD,
    "BPF_RINGBUF_HDR_SZ": ringbuf.HEADER_BYTES,
    "PERF_ATTR_SIZE_VER1": attach._PerfEventAttr.probe_offset.offset + attach._PerfEventAttr.probe_offset.size,
}


def test_numbers(tmp_path: Path) -> None:
    """Each constant has the header's value."""
    assert evaluate(HEADERS, NUMBERS, tmp_path) == NUMBERS


@pytest.mark.parametrize("field", [name for name, *_ in attach._PerfEventAttr._fields_ if name != "flags"])
def test_perf_event_attr(field: str, tmp_path: Path) -> None:
    """Every field has the header's offset, except the flags, which are bit fields there."""
    place = f"offsetof(struct perf_event_attr, {field})"
    assert evaluate(HEADERS, [place], tmp_path)[place] == getattr(attach._PerfEventAttr, field).offset
