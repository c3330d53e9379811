# SPDX-License-Identifier: Apache-2.0
"""OOM kills in systemd units, compared with systemctl and the journal."""

import os
from collections.abc import Callable, Iterator

import pytest

from tests.harness.daemon import Daemon
from tests.harness.eater import binary
from tests.harness.environment import attempts, not_applicable, wait_until
from tests.harness.oracles import Record
from tests.harness.watch import Watch

from .commands import run
from .runtime import LIMIT_BYTES, SYSTEMD, new_name

EAT = f"{binary()} -a 0 96"
KILLED = "A process of this unit has been killed by the OOM killer."
FAILED = "Failed with result 'oom-kill'."
LIMIT = (f"MemoryMax={LIMIT_BYTES}", "MemorySwapMax=0")

Properties = dict[str, str]


class Unit:
    """A transient unit, which systemd keeps after its exit until it is reset."""

    def __init__(self, name: str, command: str, *properties: str, slice_: str | None = None) -> None:
        self.name = name
        options = [f"--property={setting}" for setting in properties]
        if slice_:
            options.append(f"--slice={slice_}")
        if name.endswith(".scope"):
            # systemd-run stays in the foreground, and the scope's processes are its children.
            run(
                "sh",
                "-c",
                '"$@" >/dev/null 2>&1 &',
                "sh",
                "systemd-run",
                "--scope",
                f"--unit={name}",
                *options,
                "sh",
                "-c",
                command,
            )
        else:
            run("systemd-run", f"--unit={name}", *options, "sh", "-c", command)

    def show(self) -> Properties:
        """Its properties now."""
        names = "Id,Slice,ControlGroup,Result,ActiveState,ExecMainPID,ExecMainStatus,MemoryMax,OOMPolicy"
        return dict(line.split("=", 1) for line in run("systemctl", "show", f"-p{names}", self.name).splitlines())

    def wait_for(self, **expected: str) -> Properties:
        """Wait for these properties; all properties."""
        wait_until(f"{self.name}: {expected}", lambda: expected.items() <= self.show().items())
        return self.show()

    def journal(self) -> str:
        """systemd's messages about it in the journal."""
        return run("journalctl", "--boot", "--output=cat", "--unit", self.name)

    def forget(self) -> None:
        run("systemctl", "stop", self.name, check=False)
        run("systemctl", "reset-failed", self.name, check=False)


Start = Callable[..., Unit]


@pytest.fixture
def start(watch: Watch) -> Iterator[Start]:
    """Starts units, with the limit unless a slice is given; they are removed after the test."""
    if not SYSTEMD:
        not_applicable("systemd is not PID 1")
    units: list[Unit] = []

    def run_unit(command: str, *properties: str, suffix: str = ".service", slice_: str | None = None) -> Unit:
        limit = () if slice_ else LIMIT
        units.append(Unit(new_name("unit") + suffix, command, *limit, *properties, slice_=slice_))
        return units[-1]

    yield run_unit
    for unit in units:
        unit.forget()


@pytest.fixture
def limited_slice(start: Start) -> Iterator[str]:
    """A slice with the limit."""
    name = f"oomtrace{os.getpid()}.slice"
    run("systemctl", "set-property", "--runtime", name, *LIMIT)
    run("systemctl", "start", name)
    yield name
    run("systemctl", "stop", name)
    run("systemctl", "revert", name, check=False)


def killed(watch: Watch, unit: Unit, count: int = 1) -> list[Record]:
    """Wait for this many records of the unit, checked against the kernel log."""
    found: list[int] = []
    for _ in attempts():
        records = watch.records()
        found = [record["victim"]["pid"] for record in records if (record["systemd"] or {}).get("unit") == unit.name]
        if len(found) >= count:
            break
    assert count == len(found), [record["systemd"] for record in watch.records()]
    return watch.kills(found, steady=False)


def check_names(record: Record, properties: Properties) -> None:
    """Check that the record has systemctl's unit and slice, and no container."""
    assert {"unit": properties["Id"], "slice": properties["Slice"]} == record["systemd"]
    assert record["container"] is None
    assert record["kubernetes"] is None


def check_unit_limit(record: Record, properties: Properties) -> None:
    """Check that the limit is the unit's, as set by systemd."""
    assert record["limit"]["level"] == "unit"
    assert record["victim"]["cgroup"] == record["limit"]["cgroup"]
    assert int(properties["MemoryMax"]) == record["limit"]["limit_bytes"]


@pytest.mark.parametrize("suffix", [".service", "@a-b.service", r"@a\x2db.service", ".mount.service"])
def test_main_process(start: Start, watch: Watch, suffix: str) -> None:
    """The main process is killed: pid, limit, names and verdict are systemd's, also for odd names of units."""
    unit = start(f"exec {EAT}", suffix=suffix)
    (record,) = killed(watch, unit)
    properties = unit.wait_for(ActiveState="failed", Result="oom-kill")
    check_names(record, properties)
    check_unit_limit(record, properties)
    assert int(properties["ExecMainPID"]) == record["victim"]["pid"]
    assert properties["ExecMainStatus"] == "9"
    assert KILLED in unit.journal()
    assert FAILED in unit.journal()


def test_exit(start: Start, watch: Watch) -> None:
    """A unit is not a container: no container init dies, and there is no runtime verdict."""
    (record,) = killed(watch, start(f"exec {EAT}"))
    gone = watch.exit_of(record)
    assert (gone["container_init_died"], gone["runtime_verdict"]) == (None, None)


def test_child_stops_the_unit(start: Start, watch: Watch) -> None:
    """A child is killed, and systemd stops the unit: one record; the verdict is systemd's only."""
    unit = start(f"{EAT}; exec sleep 1000", "OOMPolicy=stop")
    (record,) = killed(watch, unit)
    properties = unit.wait_for(ActiveState="failed", Result="oom-kill")
    check_names(record, properties)
    check_unit_limit(record, properties)
    assert int(properties["ExecMainPID"]) == record["victim"]["ppid"]
    assert record["incident"]["group_kill"] is False
    assert KILLED in unit.journal()


def test_child_and_the_unit_goes_on(start: Start, watch: Watch) -> None:
    """With OOMPolicy=continue the unit's result is success; the kill is recorded."""
    unit = start(f"{EAT}; exec sleep 1000", "OOMPolicy=continue")
    (record,) = killed(watch, unit)
    wait_until("the journal's message", lambda: KILLED in unit.journal())
    properties = unit.show()
    check_names(record, properties)
    check_unit_limit(record, properties)
    assert (properties["ActiveState"], properties["Result"]) == ("active", "success")
    assert int(properties["ExecMainPID"]) == record["victim"]["ppid"]


def test_whole_unit(start: Start, watch: Watch) -> None:
    """OOMPolicy=kill sets memory.oom.group: all processes of the unit are killed in one incident."""
    unit = start(f"sleep 1000 & sleep 1000 & {EAT}; wait", "OOMPolicy=kill")
    properties = unit.wait_for(ActiveState="failed", Result="oom-kill")
    # systemd kills the processes of the unit as well, so some may be its victims.
    records = killed(watch, unit, len({kill.tid for kill in watch.logged()}))
    for record in records:
        check_names(record, properties)
        check_unit_limit(record, properties)
        assert record["incident"]["group_kill"] is True
    assert len({record["incident"]["id"] for record in records}) == 1
    assert 2 <= len(records) <= 4
    assert "eat" in [record["victim"]["comm"] for record in records]


def test_slice_limit(start: Start, watch: Watch, limited_slice: str) -> None:
    """A limit of the slice, not the unit: the record has the slice's, and the larger of two units is the victim."""
    small = start(f"exec {binary()} -H 8", slice_=limited_slice)
    small.wait_for(ActiveState="active")
    unit = start(f"exec {EAT}", slice_=limited_slice)
    (record,) = killed(watch, unit)
    properties = unit.wait_for(ActiveState="failed", Result="oom-kill")
    check_names(record, properties)
    assert limited_slice == properties["Slice"]
    assert properties["MemoryMax"] == "infinity"
    limit = record["limit"]
    assert ("slice", f"/{limited_slice}", LIMIT_BYTES) == (limit["level"], limit["cgroup"], limit["limit_bytes"])
    assert f"/{limited_slice}/{unit.name}" == record["victim"]["cgroup"]
    assert small.show()["ActiveState"] == "active"


def test_scope(start: Start, watch: Watch, tracer: Daemon) -> None:
    """A scope, whose processes systemd has not started."""
    unit = start(f"{EAT}; exec sleep 1000", "OOMPolicy=continue", suffix=".scope")
    (record,) = killed(watch, unit)
    properties = unit.show()
    check_names(record, properties)
    check_unit_limit(record, properties)
    assert unit.name.endswith(".scope")
