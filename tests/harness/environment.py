# SPDX-License-Identifier: Apache-2.0
"""Where the tests run, and how patient they are there."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IN_VM = os.environ.get("OOMTRACE_VM") == "1"
ENGINE = os.environ.get("OOMTRACE_ENGINE", "auto")

PATIENCE = float(os.environ.get("OOMTRACE_PATIENCE", "1"))
"""A machine that has other things to do needs more: all of these are multiplied by it."""

PATIENCE_S = PATIENCE * (60.0 if IN_VM else 10.0)
"""The longest wait for something that should happen at once; a VM without KVM is 5 to 15 times slower."""

START_S = PATIENCE * (600.0 if IN_VM else 30.0)
"""The longest wait for the tracer to attach: bcc compiles first."""

CPUS = os.cpu_count() or 1
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20

KERNEL = os.uname().release
HAS_BTF = Path("/sys/kernel/btf/vmlinux").exists()
KERNEL_VERSION = tuple(int(part) for part in KERNEL.split("-")[0].split(".")[:2])


def require(condition: object, reason: str) -> None:
    """Skip without the condition; fail instead where OOMTRACE_REQUIRE=all says that everything is there."""
    if condition:
        return
    if os.environ.get("OOMTRACE_REQUIRE") == "all":
        pytest.fail(f"missing: {reason}")
    pytest.skip(reason)


def not_applicable(reason: str) -> None:
    """Skip a test that has no meaning on this cgroup version."""
    pytest.skip(f"not applicable: {reason}")


def attempts(seconds: float = PATIENCE_S, pause: float = 0.01) -> Iterator[float]:
    """Yield until the time is over, at least twice, sleeping in between."""
    end = time.monotonic() + seconds
    yield seconds
    while time.monotonic() < end:
        time.sleep(pause)
        yield end - time.monotonic()
    yield 0.0


def wait_until(what: str, condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Return as soon as the condition holds; fail the test when it does not in time."""
    for _ in attempts(seconds):
        if condition():
            return
    pytest.fail(f"not within {seconds:.0f} s: {what}")
