# SPDX-License-Identifier: Apache-2.0
"""Capabilities of this process (capabilities(7)), and its priority."""

import contextlib
import ctypes
import os

from tracer.base.log import warn

CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 2, 19, 21, 38, 39
"""include/uapi/linux/capability.h"""

NICE = -10
PERF_PARANOID = "/proc/sys/kernel/perf_event_paranoid"
_PERF_PARANOID_UPSTREAM_MAX = 2
_VERSION_3 = 0x20080522
_PR_SET_NO_NEW_PRIVS = 38


class _Header(ctypes.Structure):
    """``struct __user_cap_header_struct``."""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    """``struct __user_cap_data_struct``: 32 capabilities; version 3 uses two of them."""

    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def effective_capabilities() -> int:
    """The effective capabilities of this thread, one bit each."""
    with open("/proc/thread-self/status", encoding="ascii") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))


def missing_capabilities() -> tuple[str, ...]:
    """Names of the capabilities that tracing needs and this thread lacks."""
    held = effective_capabilities()

    def has(capability: int) -> bool:
        return bool(held >> capability & 1)

    if has(CAP_SYS_ADMIN):
        return ()
    needed = {"CAP_BPF": has(CAP_BPF), "CAP_PERFMON": has(CAP_PERFMON)}
    if _needs_sys_admin():
        needed["CAP_SYS_ADMIN"] = False
    return tuple(name for name, held in needed.items() if not held)


def _needs_sys_admin() -> bool:
    """Whether kprobes need CAP_SYS_ADMIN: Debian's and Ubuntu's kernels have levels above upstream's highest."""
    with contextlib.suppress(OSError, ValueError), open(PERF_PARANOID, encoding="ascii") as file:
        return int(file.read()) > _PERF_PARANOID_UPSTREAM_MAX
    return False


def keep_capabilities(*capabilities: int) -> None:
    """Drop all other capabilities permanently, for this thread and those that it starts: call it before any is started.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kept = effective_capabilities() & sum(1 << capability for capability in capabilities)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    data = (_Data * 2)(_Data(low, low, 0), _Data(high, high, 0))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), data):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def reader_capabilities(network: bool) -> tuple[int, ...]:
    """Capabilities that reader processes need; ``network``: also to enter network namespaces."""
    return (CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, *((CAP_SYS_ADMIN,) if network else ()))


def drop_capabilities() -> None:
    """Keep only what the running daemon needs, because from now on it parses untrusted data."""
    try:
        keep_capabilities(CAP_BPF, *reader_capabilities(network=False))
    except OSError as error:
        warn(f"cannot drop capabilities ({error.strerror}); oomtrace keeps more than it needs")


def raise_priority() -> None:
    """Set a higher priority (nice): in a storm of kills the ring buffer fills while other processes use the CPU."""
    with contextlib.suppress(OSError):  # without CAP_SYS_NICE
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
