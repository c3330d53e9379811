# SPDX-License-Identifier: Apache-2.0
"""Attaches loaded programs, the same way for both engines.

libbpf's own functions for kprobes need its object, which bcc does not have, and do not return the descriptors.
"""

import ctypes
import fcntl
import os
from collections.abc import Sequence

from tracer.capture.programs import Hook, Link
from tracer.linux import libbpf

KPROBE = "/sys/bus/event_source/devices/kprobe"

_BPF_PERF_EVENT = 41
"""enum bpf_attach_type in include/uapi/linux/bpf.h."""
_PERF_FLAG_FD_CLOEXEC = 1 << 3
_PERF_EVENT_IOC_ENABLE = 0x2400
_PERF_EVENT_IOC_SET_BPF = 0x40042408
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
"""The number of the system call; the C library has no wrapper."""


class _PerfEventAttr(ctypes.Structure):
    """``struct perf_event_attr`` up to PERF_ATTR_SIZE_VER1; include/uapi/linux/perf_event.h."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("kprobe_func", ctypes.c_char_p),
        ("probe_offset", ctypes.c_uint64),
    ]


def attach_programs(programs: dict[str, int], hooks: Sequence[Hook], required: frozenset[str]) -> list[Link]:
    """Attach programs (name -> descriptor) to their hooks.

    A hook is skipped if its program is missing, or if the kernel refuses it and it is not ``required``.
    Raises OSError if the kernel refuses a required one.
    """
    links: list[Link] = []
    try:
        for hook in hooks:
            if hook.program not in programs:
                continue
            try:
                links.append(_attach_program(programs[hook.program], hook))
            except OSError as error:
                if hook.program in required:
                    raise OSError(error.errno, f"{hook.kind} {hook.target}: {error.strerror}") from error
    except BaseException:
        for link in links:
            os.close(link.descriptor)
        raise
    return links


def _attach_program(program: int, hook: Hook) -> Link:
    if hook.kind == "raw_tp":
        link = libbpf.library().bpf_raw_tracepoint_open(hook.target.encode(), program)
        if link < 0:
            raise libbpf.last_error()
        return Link(hook, link, pinnable=True)
    event = _open_kprobe(hook.target, hook.kind == "kretprobe")
    link = libbpf.library().bpf_link_create(program, event, _BPF_PERF_EVENT, None)
    if link >= 0:
        os.close(event)  # the link holds a reference
        return Link(hook, link, pinnable=True)
    # Before Linux commit b89fbfbb854c ("bpf: Implement minimal BPF perf link") (in v5.15) only the event keeps the
    # program attached, and an event cannot be pinned.
    try:
        fcntl.ioctl(event, _PERF_EVENT_IOC_SET_BPF, program)
        fcntl.ioctl(event, _PERF_EVENT_IOC_ENABLE, 0)
    except OSError:
        os.close(event)
        raise
    return Link(hook, event, pinnable=False)


def _open_kprobe(function: str, is_return: bool) -> int:
    """Open a perf event for a kprobe or kretprobe; see perf_event_open(2)."""
    with open(f"{KPROBE}/type", encoding="ascii") as file:
        kind = int(file.read())
    config = 0
    if is_return:
        with open(f"{KPROBE}/format/retprobe", encoding="ascii") as file:
            config = 1 << int(file.read().rpartition(":")[2])  # "config:0"
    attributes = _PerfEventAttr(kind, ctypes.sizeof(_PerfEventAttr), config, kprobe_func=function.encode())
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    any_pid, cpu, group = ctypes.c_long(-1), ctypes.c_long(0), ctypes.c_long(-1)  # the program runs on every CPU
    number = _PERF_EVENT_OPEN[os.uname().machine]
    event = call(
        ctypes.c_long(number), ctypes.byref(attributes), any_pid, cpu, group, ctypes.c_long(_PERF_FLAG_FD_CLOEXEC)
    )
    if event < 0:
        raise libbpf.last_error()
    return int(event)
