# SPDX-License-Identifier: Apache-2.0
"""Properties of the machine that runs the tests, timeouts for it, and conditions to skip a test."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IN_VM = os.environ.get("OOMTRACE_VM") == "1"
ENGINE = os.environ.get("OOMTRACE_ENGINE", "auto")

TIMEOUT_SCALE = float(os.environ.get("OOMTRACE_PATIENCE", "1"))
"""Multiplies every timeout; above 1 on a busy machine."""

TIMEOUT_S = TIMEOUT_SCALE * (60.0 if IN_VM else 10.0)
"""Timeout for what should happen at once; a VM without KVM is 5 to 15 times slower."""

START_TIMEOUT_S = TIMEOUT_SCALE * (600.0 if IN_VM else 30.0)
"""Timeout for the daemon to attach; bcc compiles first."""

CPUS = os.cpu_count() or 1
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20

KERNEL = os.uname().release
HAS_BTF = Path("/sys/kernel/btf/vmlinux").exists()
KERNEL_VERSION = tuple(int(part) for part in KERNEL.split("-")[0].split(".")[:2])


def require(condition: object, reason: str) -> None:
    """Skip the test unless the condition holds; fail it instead where OOMTRACE_REQUIRE=all."""
    if condition:
        return
    if os.environ.get("OOMTRACE_REQUIRE") == "all":
        pytest.fail(f"missing: {reason}")
    pytest.skip(reason)


def not_applicable(reason: str) -> None:
    """Skip a test that does not apply to this kernel, cgroup version or machine, also where OOMTRACE_REQUIRE=all."""
    pytest.skip(f"not applicable: {reason}")


def attempts(seconds: float = TIMEOUT_S, pause: float = 0.01) -> Iterator[float]:
    """Yield the seconds left until the timeout, at least twice, and sleep in between."""
    end = time.monotonic() + seconds
    yield seconds
    while time.monotonic() < end:
        time.sleep(pause)
        yield end - time.monotonic()
    yield 0.0


def wait_until(what: str, condition: Callable[[], object], seconds: float = TIMEOUT_S) -> None:
    """Return as soon as the condition holds; fail the test at the timeout."""
    for _ in attempts(seconds):
        if condition():
            return
    pytest.fail(f"not within {seconds:.0f} s: {what}")
