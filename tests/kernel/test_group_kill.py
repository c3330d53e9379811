# SPDX-License-Identifier: Apache-2.0
"""memory.oom.group: the kernel kills all processes of a cgroup in one incident."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import oracles
from tests.harness.cgroups import Cgroup
from tests.harness.dying import stopped_in_exit
from tests.harness.environment import ENGINE, IN_VM, attempts, not_applicable, wait_until
from tests.harness.oracles import Record
from tests.harness.watch import Watch

from .conftest import Eat, Fence, MakeDaemon
from .test_marked import KPROBE_PMU, hidden
from .test_pins import other_version

ROUNDS, MEMBERS = 4, 8
PREEMPTION = Path("/sys/kernel/debug/sched/preempt")


@pytest.fixture(autouse=True)
def on_cgroup2(cgroup: Cgroup) -> None:
    """Skip on cgroup v1."""
    if cgroup.hierarchy.version == 1:
        not_applicable("cgroup v1 has no memory.oom.group")


def test_all_die(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """Each process of the group has a record, all of one incident; the kernel's counters are one higher."""
    group = cgroup.child("group", 24)
    group.write("memory.oom.group", 1)
    before = oracles.vmstat_oom_kills()
    eaters = [eat(1, group, hold=True, comm=f"bystander{n}").full() for n in range(3)]
    eaters.append(eat(48, group, comm="main"))
    records = watch.kills([eater.die().pid for eater in eaters])
    incidents = [record["incident"] for record in records]
    assert [incidents[0]["id"]] * 4 == [incident["id"] for incident in incidents]
    assert [incident["group_kill"] for incident in incidents] == [True] * 4
    assert [incident["victims"] for incident in incidents] == [4] * 4
    assert [eaters[3].pid] * 4 == [record["trigger"]["pid"] for record in records]
    assert [group.name] * 4 == [record["limit"]["cgroup"] for record in records]
    assert len({record["id"] for record in records}) == 4
    assert oracles.vmstat_oom_kills() - before == 5
    assert group.oom_kills() == 5
    points = [record["victim"]["points"] for record in records]
    assert [None, None, None, not kprobes] == [*points[:3], points[3] is None]
    assert [eater.pid for eater in eaters] == [watch.exit_of(record)["pid"] for record in records]
    # The kernel logs the first victim before the line about the group.
    assert [None, *[group.name] * 4] == [kill.group for kill in watch.logged()]


def test_flag_above_the_victim(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """memory.oom.group of a parent cgroup kills the processes of its children, each recorded with its own cgroup."""
    parent = cgroup.child("parent", 24)
    parent.write("memory.oom.group", 1)
    left, right = parent.child("left"), parent.child("right")
    bystander = eat(1, left, hold=True).full()
    eater = eat(48, right)
    records = watch.kills([bystander.die().pid, eater.die().pid])
    assert [left.name, right.name] == [record["victim"]["cgroup"] for record in records]
    assert [parent.name] * 2 == [record["limit"]["cgroup"] for record in records]
    assert [record["incident"]["victims"] for record in records] == [2] * 2


def test_namespace_dies(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A victim in a PID namespace whose init is killed just after it: both exits are recorded."""
    group = cgroup.child("group", 24)
    group.write("memory.oom.group", 1)
    init = eat(20, group, namespace=True, gate=True)
    init.start()
    (init_pid,) = init.children()
    eat(16, group, hold=True, through=("nsenter", f"--pid=/proc/{init_pid}/ns/pid")).full()
    init.go()
    wait_until("both have records", lambda: len(victims_in(watch, group)) == 2)
    records = watch.kills(victims_in(watch, group))
    assert init_pid == records[1]["victim"]["pid"] == records[0]["trigger"]["pid"]
    assert [record["victim"]["pid"] for record in records] == [watch.exit_of(record)["pid"] for record in records]


@pytest.fixture
def preemptible() -> Iterator[None]:
    """Full preemption where the kernel allows the change at run time: without it no kprobe is skipped."""
    if not IN_VM or not PREEMPTION.exists():
        yield
        return
    before = next(word for word in PREEMPTION.read_text().split() if word.startswith("(")).strip("()")
    PREEMPTION.write_text("full")
    yield
    PREEMPTION.write_text(before)


@pytest.mark.usefixtures("preemptible")
def test_others_use_bpf(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """Each victim has one record with its own name, though kprobes are skipped while a program updates a BPF map."""
    kill_groups(cgroup, eat, watch.records)


@pytest.mark.vm
@pytest.mark.usefixtures("preemptible")
def test_tracepoint_with_a_pid(make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat, tmp_path: Path) -> None:
    """The same if the tracepoint passes a pid, as before Linux 6.9: where a kprobe is skipped, the name is null."""
    if ENGINE != "bcc":
        not_applicable("only bcc compiles the programs at run time")
    argument = "u64 argument = ctx->args[0];"
    pid = argument.replace("ctx->args[0]", "(u32)READ((struct task_struct *)ctx->args[0], pid)")
    daemon = make_daemon(root=other_version(tmp_path, "bpf/hooks/mark_victim.h", argument, pid))
    daemon.wait_ready()
    kill_groups(cgroup, eat, lambda: daemon.of_type("oom_kill"))
    assert daemon.stop()["lost"] == 0


def kill_groups(cgroup: Cgroup, eat: Eat, records: Callable[[], list[Record]]) -> None:
    """Kill groups beside a process that updates a BPF map in a loop; check the records of their members."""
    eat(0, update_map=True, life=600).start()
    nameless = 0
    for turn in range(ROUNDS):
        group = cgroup.child(f"group{turn}", 32)
        group.write("memory.oom.group", 1)
        names = {eat(1, group, hold=True, comm=f"held{n}").full().pid: f"held{n}" for n in range(MEMBERS)}
        names[eat(64, group, comm="main").die().pid] = "main"
        found = dict[int, list[str | None]]()
        for _ in attempts():
            found = {tid: [] for tid in names}
            for record in records():
                found.get(record["victim"]["tid"], []).append(record["victim"]["comm"])
            if all(found.values()):
                break
        assert dict.fromkeys(names, 1) == {tid: len(comms) for tid, comms in found.items()}, "records of each victim"
        assert [tid for tid, (comm,) in found.items() if comm not in (names[tid], None)] == []
        nameless += sum(comm is None for (comm,) in found.values())
    print(f"of {ROUNDS * (1 + MEMBERS)} records {nameless} are without a name")


def victims_in(watch: Watch, group: Cgroup) -> list[int]:
    return [record["victim"]["pid"] for record in watch.records() if record["victim"]["cgroup"] == group.name]


@pytest.mark.vm
def test_the_protected_survive(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A process with oom_score_adj -1000 is not a victim of a group kill, and not counted."""
    group = cgroup.child("group", 24)
    group.write("memory.oom.group", 1)
    protected = eat(1, group, hold=True, adj=-1000).full()
    bystander = eat(1, group, hold=True).full()
    eater = eat(48, group)
    records = watch.kills([bystander.die().pid, eater.die().pid])
    assert [record["incident"]["victims"] for record in records] == [2] * 2
    assert protected.process.poll() is None


def test_group_of_one(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A group of one process: an incident with one victim, which the kernel counts twice."""
    group = cgroup.child("group", 16)
    group.write("memory.oom.group", 1)
    record = watch.kill(eat(32, group).die())
    assert record["incident"]["victims"] == 1
    assert record["incident"]["group_kill"] is True
    assert group.oom_kills() == 2


def test_next_incident_is_another(watch: Watch, cgroup: Cgroup, eat: Eat, fence: Fence) -> None:
    """A kill after a group kill is a new incident, and not a group kill."""
    group = cgroup.child("group", 16)
    group.write("memory.oom.group", 1)
    record = watch.kill(eat(32, group).die())
    after = fence()
    assert record["incident"]["id"] != after["incident"]["id"]
    assert after["incident"]["group_kill"] is False


@pytest.mark.vm
@pytest.mark.parametrize("before", ["one", "group"])
@pytest.mark.parametrize("kprobes", [True, False], ids=["kprobes", "tracepoints"])
def test_killed_again(
    make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat, tmp_path: Path, kprobes: bool, before: str
) -> None:
    """A victim that still exits while a parent cgroup is killed has one record; the kernel's double count is no gap."""
    parent = cgroup.child("parent", 64)
    parent.write("memory.oom.group", 1)
    inner, beside = parent.child("inner", 16), parent.child("beside")
    inner.write("memory.oom.group", int(before == "group"))
    daemon = make_daemon()
    with contextlib.nullcontext() if kprobes else hidden(KPROBE_PMU, tmp_path):
        assert daemon.wait_ready()["source"] == ("bpf" if kprobes else "bpf_tracepoints")
    counted = oracles.vmstat_oom_kills()

    def kills() -> list[int]:
        return [record["victim"]["pid"] for record in daemon.of_type("oom_kill")]

    first = eat(32, inner, gate=True)
    first.start()
    with stopped_in_exit(first.pid):
        first.go()
        wait_until("its record", kills)
        once = oracles.vmstat_oom_kills() - counted
        second = eat(96, beside).die()
        wait_until("the other record", lambda: len(kills()) == 2)
        assert oracles.vmstat_oom_kills() - counted - once == 3  # the second eater is counted twice
    first.die()
    stop = daemon.stop()
    assert kills() == [first.pid, second.pid]
    assert [daemon.of_type("gap"), stop["lost"]] == [[], 0]
    assert sorted(each["pid"] for each in daemon.of_type("oom_exit")) == sorted(kills())


@pytest.mark.vm
@pytest.mark.parametrize("kprobes", [True, False], ids=["kprobes", "tracepoints"])
def test_threads(make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat, tmp_path: Path, kprobes: bool) -> None:
    """A process whose main thread dies first may be killed and counted twice: one record, and no gap."""
    group = cgroup.child("group", 160)
    group.write("memory.oom.group", 1)
    daemon = make_daemon()
    with contextlib.nullcontext() if kprobes else hidden(KPROBE_PMU, tmp_path):
        daemon.wait_ready()
    counted = oracles.vmstat_oom_kills()
    eaters = [eat(1, group, hold=True, extra_threads=8).full() for _ in range(60)]
    eaters.append(eat(320, group))
    pids = {eater.die().pid for eater in eaters}

    def exits() -> set[int]:
        return {record["pid"] for record in daemon.of_type("oom_exit")}

    wait_until("all exits", lambda: pids <= exits())
    time.sleep(3.0)  # the audit compares the counts after one second, and again a second later
    stop = daemon.stop()
    counted = oracles.vmstat_oom_kills() - counted
    print(f"killed {len(pids)}, counted {counted}")
    seen = [record for record in daemon.of_type("oom_kill") if record["victim"]["cgroup"] == group.name]
    assert sorted(pids) == sorted(record["victim"]["pid"] for record in seen)
    assert [daemon.of_type("gap"), stop["lost"]] == [[], 0]
