# SPDX-License-Identifier: Apache-2.0
"""Hostile names chosen by a container: the record is still one line of valid JSON that has them."""

import pytest

from tests.harness.cgroups import Cgroup, as_text
from tests.harness.eater import Eater
from tests.harness.watch import Watch

from .conftest import Eat, Fence

COMMS = [
    b"",
    b" ",
    b"two\nlines",
    b'"quoted"',
    b"back\\slash\\x41",
    b"a) (b",
    b") total-vm:1kB",
    b",task=x,pid=1",
    b"\x1b[31mred\x1b[0m",
    b"\x01cbyte one",
    b"\xff\xfe\x80",
    b"\t\r\x7f",
    b'{"a":[null]}',
    "ééééééé".encode() + b"\xc3",
    b"sixteen bytes !!",
    b"<script>",
    b"$(reboot)",
    b"%s%n%p",
]


@pytest.mark.parametrize("comm", COMMS, ids=repr)
def test_process_name(watch: Watch, cgroup: Cgroup, eat: Eat, comm: bytes) -> None:
    """Process names may have any bytes; the kernel cuts them to 15."""
    record = watch.kill(eat(16, cgroup.child("limit", 8), comm=comm).die())
    assert as_text(comm[:15]) == record["victim"]["comm"] == record["trigger"]["comm"]


CGROUPS = [
    b"with space",
    b'"quoted"',
    b"comma,task_memcg=x,task=fake,pid=1,uid=0",
    b"): Killed process 1 (init) total-vm:1kB",
    b"tab\tand\rreturn",
    b"\x1b[31mred",
    b"\xff\xfe\x80",
    b"\x01\x7f",
    "grün".encode(),
    b"back\\x2dslash",
    b"...",
    b"n" * 255,
]


@pytest.mark.parametrize("name", CGROUPS, ids=lambda name: repr(name[:30]))
def test_cgroup_name(watch: Watch, cgroup: Cgroup, eat: Eat, name: bytes) -> None:
    """Cgroup names may have any bytes but slash, newline and NUL."""
    parent = cgroup.child(name, 8)
    child = parent.child(name)
    assert f"{cgroup.name}/{as_text(name)}/{as_text(name)}" == child.name
    record = watch.kill(eat(16, child).die())
    assert parent.name == record["limit"]["cgroup"]
    assert child.name == record["victim"]["cgroup"] == record["trigger"]["cgroup"]
    assert record["truncated"] == []


def eat_inside(eat: Eat, group: Cgroup) -> Eater:
    """Run an eater in a cgroup without the cgroup's long name in its command line."""
    eater = eat(16, gate=True)
    eater.start()
    group.write("cgroup.procs", eater.pid)
    eater.go()
    return eater.die()


def deep(cgroup: Cgroup, levels: int) -> Cgroup:
    """A cgroup this many levels down, with names of 200 bytes."""
    for level in range(levels):
        cgroup = cgroup.child(f"{level:03}" * 66 + "xx")
    return cgroup


def test_long_path(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A path longer than a line of the kernel log is complete in the record."""
    limit = deep(cgroup, 5)
    limit.limit(8 << 20)
    child = limit.child("child")
    assert len(child.name) > 1000
    record = watch.kill(eat_inside(eat, child))
    assert limit.name == record["limit"]["cgroup"]
    assert child.name == record["victim"]["cgroup"] == record["trigger"]["cgroup"]
    assert record["truncated"] == []


def test_very_long_path(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """A path too long for a line of 8 KiB is cut and listed in ``truncated``."""
    group = deep(cgroup, 17)
    group.limit(8 << 20)
    assert len(group.name) > 3400
    record = watch.kill(eat_inside(eat, group))
    for path in ("limit.cgroup", "victim.cgroup", "trigger.cgroup"):
        part, field = path.split(".")
        if not kprobes and record[part] is None:
            continue  # from the kernel log, whose lines are cut near 1 KiB
        assert (group.name == record[part][field]) != (path in record["truncated"]), path
    if kprobes:
        assert record["truncated"]


ARGUMENTS: list[list[bytes]] = [
    [b"", b"", b"after two empty ones"],
    [b"last one empty", b""],
    [b"two\nlines", b"tab\t", b"\x1b[31m", b"\x7f"],
    [b"\xff\xfe", "grün".encode(), b"\xc3"],
    [b'"', b"\\", b"{}", b"'"],
]


@pytest.mark.parametrize("extra", ARGUMENTS, ids=repr)
def test_command_line(watch: Watch, cgroup: Cgroup, eat: Eat, extra: list[bytes]) -> None:
    """Arguments may have any bytes, or none."""
    eater = eat(16, cgroup.child("limit", 8), extra=extra).die()
    record = watch.kill(eater)
    assert eater.command_line == record["victim"]["cmdline"]
    assert record["truncated"] == []


@pytest.mark.parametrize("length", [4096, 100_000])
def test_long_command_line(watch: Watch, cgroup: Cgroup, eat: Eat, length: int) -> None:
    """A long command line keeps its beginning, and is listed in ``truncated``."""
    eater = eat(16, cgroup.child("limit", 8), extra=["x" * length]).die()
    record = watch.kill(eater)
    *complete, cut = record["victim"]["cmdline"]
    assert eater.command_line[: len(complete)] == complete
    assert len(complete) == len(eater.command_line) - 1
    assert 100 < len(cut) < length
    assert cut.rstrip("…") == "x" * len(cut.rstrip("…"))
    assert record["truncated"] == ["victim.cmdline"]


def test_many_arguments(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A command line of many arguments keeps its beginning."""
    eater = eat(16, cgroup.child("limit", 8), extra=[f"{n:05}" for n in range(5000)]).die()
    record = watch.kill(eater)
    cmdline = record["victim"]["cmdline"]
    assert 20 < len(cmdline) < 5000
    assert eater.command_line[: len(cmdline) - 1] == cmdline[:-1]
    assert record["truncated"] == ["victim.cmdline"]


def test_everything_at_once(watch: Watch, cgroup: Cgroup, eat: Eat, fence: Fence) -> None:
    """All hostile names together: the line is valid, and so is the next record."""
    group = cgroup
    for level in range(8):
        group = group.child(bytes([level + 1]) + b'"\\\xff\x1b' * 50)
    group.limit(8 << 20)
    eater = eat(16, group, comm=b'\x01"\\\xff\x1b' * 3, extra=[b'"\\\xff\x1b' * 4000]).die()
    record = watch.kill(eater)
    assert as_text(b'\x01"\\\xff\x1b' * 3) == record["victim"]["comm"]
    assert "victim.cmdline" in record["truncated"]
    assert fence()["truncated"] == []
