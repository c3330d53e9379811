# SPDX-License-Identifier: Apache-2.0
"""Victims that are partly swapped out."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.environment import MIB, PAGE, require
from tests.harness.watch import Watch

from .conftest import Eat

pytestmark = pytest.mark.vm

AREA = b"/dev/vm-swap"


def call(function: str, *arguments: object) -> None:
    """Call a function of the C library.

    Raises OSError when it fails.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), function)


@pytest.fixture
def swap() -> Iterator[None]:
    """Swap space during the test."""
    require(Path(os.fsdecode(AREA)).exists(), "a swap area")
    call("swapon", AREA, 0)
    yield
    call("swapoff", AREA)


@pytest.mark.usefixtures("swap")
def test_swapped_out(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """The record has the victim's swap and the limit's swap."""
    group = cgroup.child("swaps", 16, swap=True)
    if cgroup.hierarchy.version == 2:
        group.write("memory.swap.max", 8 * MIB)
    else:
        require((group.path / "memory.memsw.limit_in_bytes").exists(), "swap accounting")
        group.write("memory.memsw.limit_in_bytes", 24 * MIB)
    record = watch.kill(eat(64, group).die())
    limit, victim = record["limit"], record["victim"]
    assert 6 * MIB < victim["swap_bytes"] < 10 * MIB
    # Pages that are still being written to swap are in swap_bytes, but charged as memory: up to 8 MiB of the 16.
    assert 15 * MIB < victim["swap_bytes"] + victim["rss_bytes"] < 26 * MIB
    if cgroup.hierarchy.version == 2:
        assert limit["swap_limit_bytes"] == 8 * MIB
        assert 6 * MIB < limit["swap_usage_bytes"] <= 8 * MIB
    else:
        assert limit["memsw_limit_bytes"] == 24 * MIB
        assert 22 * MIB < limit["memsw_usage_bytes"] <= 24 * MIB
    if kprobes:
        assert record["incident"]["total_pages"] == 24 * MIB // PAGE


@pytest.mark.usefixtures("swap")
def test_no_swap_allowed(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """In a cgroup without swap the victim has none."""
    record = watch.kill(eat(64, cgroup.child("dry", 16)).die())
    assert record["victim"]["swap_bytes"] == 0
    if cgroup.hierarchy.version == 2:
        assert (record["limit"]["swap_usage_bytes"], record["limit"]["swap_limit_bytes"]) == (0, 0)
