# SPDX-License-Identifier: Apache-2.0
"""The victim: threads, shared memory, users, namespaces; and processes that are not victims."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.eater import Eater, binary
from tests.harness.environment import HAS_BTF, TIMEOUT_S, wait_until
from tests.harness.oracles import marked_victims
from tests.harness.watch import Watch
from tracer.capture.wire import ANCESTORS_MAX

from .conftest import Eat, Fence

NAMESPACES = 5
"""Nested in each other."""


def test_thread_asks(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """When a thread allocates, the trigger is the thread and the victim is its process."""
    eater = eat(32, cgroup.child("limit", 16), thread=True, comm="leader", thread_comm="thread").die()
    _, thread = eater.start()
    record = watch.kill(eater)
    assert (eater.pid, eater.pid, "leader") == tuple(record["victim"][key] for key in ("pid", "tid", "comm"))
    assert (eater.pid, thread, "thread") == tuple(record["trigger"][key] for key in ("pid", "tid", "comm"))


def test_leader_is_gone(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """When the main thread has exited, the kernel kills another thread; ``pid`` is still that of the process."""
    eater = eat(32, cgroup.child("limit", 16), zombie_leader=True, wait_ms=50, thread_comm="thread").die()
    _, thread = eater.start()
    record = watch.kill(eater)
    assert (eater.pid, thread, "thread") == tuple(record["victim"][key] for key in ("pid", "tid", "comm"))
    assert eater.pid == watch.exit_of(record)["pid"]


def test_shared_memory_map(watch: Watch, cgroup: Cgroup, eat: Eat, kprobes: bool) -> None:
    """A process that shares the victim's memory is killed, too, and listed in ``shared_mm``."""
    eater = eat(32, cgroup.child("limit", 16), share_mm=True).die()
    (sharing_pid,) = eater.children()
    comms = {eater.pid: "eat", sharing_pid: "eat-sharer"}
    wait_until("the record", lambda: [r for r in watch.records() if r["victim"]["pid"] in comms])
    (victim,) = [record["victim"]["pid"] for record in watch.records() if record["victim"]["pid"] in comms]
    record = watch.kill(victim)
    other = next(pid for pid in comms if pid != victim)
    assert [{"pid": other, "comm": comms[other]}] == record["victim"]["shared_mm"]
    wait_until("the other process has exited", lambda: not os.path.exists(f"/proc/{sharing_pid}"))


def test_vfork(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A child of vfork requests memory: the kernel kills its parent, whose memory it uses, and the child with it."""
    eater = eat(32, cgroup.child("limit", 16), vfork=True).die()
    child, _ = eater.start()
    record = watch.kill(eater)
    assert (child, "eat-vforked") == (record["trigger"]["pid"], record["trigger"]["comm"])
    assert [{"pid": child, "comm": "eat-vforked"}] == record["victim"]["shared_mm"]
    wait_until("the child's end", lambda: not os.path.exists(f"/proc/{child}"))
    assert eater.pid == watch.exit_of(record)["pid"]


def test_nothing_shared(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """Threads and children are not in ``shared_mm``."""
    record = watch.kill(eat(32, cgroup.child("limit", 16), thread=True).die())
    assert not record["victim"]["shared_mm"]


def test_user(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """``uid`` of victim and trigger is that of the process."""
    record = watch.kill(eat(32, cgroup.child("limit", 16), uid=4_000_000_000).die())
    assert 4_000_000_000 == record["victim"]["uid"] == record["trigger"]["uid"]


def test_adjusted_score(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A small process with a high oom_score_adj is the victim."""
    group = cgroup.child("limit", 24)
    small = eat(4, group, adj=1000, hold=True, comm="small").full()
    large = eat(22, group, comm="large")
    small.die()
    large.wait()
    record = watch.kill(small)
    assert record["victim"]["oom_score_adj"] == 1000
    assert large.pid == record["trigger"]["pid"]


@pytest.mark.vm
def test_negative_score(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A low oom_score_adj does not spare the only candidate."""
    record = watch.kill(eat(32, cgroup.child("limit", 16), adj=-999).die())
    assert record["victim"]["oom_score_adj"] == -999


def test_host_namespace(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """In the host's PID namespace, ``namespace_pid`` equals ``pid``, and ``is_container_init`` is false."""
    eater = eat(32, cgroup.child("limit", 16)).die()
    victim = watch.kill(eater)["victim"]
    assert (eater.pid, False) == (victim["namespace_pid"], victim["is_container_init"])


def test_container_init(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """The init of a PID namespace is recorded as a container's init, with its pid on the host."""
    eater = eat(32, cgroup.child("limit", 16), namespace=True)
    (init,) = eater.children()
    assert eater.wait() == 128 + signal.SIGKILL
    record = watch.kill(init)
    victim = record["victim"]
    assert (1, True, eater.pid) == (victim["namespace_pid"], victim["is_container_init"], victim["ppid"])
    assert victim["ancestors"] == []  # its parents are outside of the namespace
    assert watch.exit_of(record)["container_init_died"] is True


def test_container_child(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A child of a PID namespace's init is not a container's init."""
    group = cgroup.child("limit", 16)
    eater = eat(32, group, inner_namespace=True, gate=True)
    (init,) = set(eater.children(2)) - {2}  # without the child's pid inside the namespace
    eater.start()
    (pid,) = group.processes()
    eater.go()
    eater.wait()
    victim = watch.kill(pid)["victim"]
    assert (2, False, init) == (victim["namespace_pid"], victim["is_container_init"], victim["ppid"])
    assert [init] == [ancestor["pid"] for ancestor in victim["ancestors"]]


def test_nested_namespaces(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """The record of a victim five PID namespaces deep has its pids on the host and in the innermost namespace."""
    group = cgroup.child("limit", 16)
    four_more = ("unshare", "--pid", "--kill-child") * (NAMESPACES - 1)
    eater = eat(32, group, inner_namespace=True, gate=True, through=four_more)
    eater.start()
    (pid,) = group.processes()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    numbers, parent = [int(number) for number in status["NSpid"].split()], int(status["PPid"])
    assert (len(numbers), numbers[0]) == (1 + NAMESPACES, pid)
    eater.go()
    eater.wait()
    record = watch.kill(pid)
    victim = record["victim"]
    assert (numbers[-1], False, parent) == (victim["namespace_pid"], victim["is_container_init"], victim["ppid"])
    assert [parent] == [ancestor["pid"] for ancestor in victim["ancestors"]]
    assert pid == record["trigger"]["pid"]
    assert pid == watch.exit_of(record)["pid"]


def test_ancestors(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """On the host the ancestors are all parents up to pid 1."""
    eater = eat(32, cgroup.child("limit", 16)).die()
    expected: list[dict[str, object]] = []
    pid = os.getpid()
    while pid and len(expected) < ANCESTORS_MAX:
        stat = Path(f"/proc/{pid}/stat").read_text()
        expected.append({"pid": pid, "comm": stat[stat.index("(") + 1 : stat.rindex(")")]})
        pid = int(stat[stat.rindex(")") + 1 :].split()[1])
    record = watch.kill(eater)
    assert expected == record["victim"]["ancestors"]
    assert watch.exit_of(record)["container_init_died"] is None


def test_host_network(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """The network namespace is the victim's, here the host's; without BTF it is unknown."""
    network = watch.kill(eat(32, cgroup.child("limit", 16)).die())["network"]
    inode = os.stat("/proc/self/ns/net").st_ino
    if not HAS_BTF:
        assert network == {"namespace_inode": None, "host_network": None, "interfaces": None}
        return
    assert network == {"namespace_inode": inode, "host_network": True, "interfaces": None}


def test_exit_follows(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """The victim's exit has a record, later than that of the kill."""
    eater = eat(32, cgroup.child("limit", 16)).die()
    record = watch.kill(eater)
    gone = watch.exit_of(record)
    assert eater.pid == gone["pid"]
    assert record["incident"]["id"] == gone["incident_id"]
    assert 0 < gone["after_ns"] < TIMEOUT_S * 1e9
    assert record["seq"] < gone["seq"]
    assert record["time"] < gone["time"]


def test_sigkill_is_no_oom_kill(watch: Watch, cgroup: Cgroup, eat: Eat, fence: Fence) -> None:
    """A SIGKILL sent to a process near its limit makes no oom_kill record."""
    eater = eat(14, cgroup.child("limit", 16), hold=True).full()
    os.kill(eater.pid, signal.SIGKILL)
    eater.die()
    fence()
    assert eater.pid not in [record["victim"]["pid"] for record in watch.records()]


def test_dying_victim_is_not_killed(watch: Watch, cgroup: Cgroup, eat: Eat, fence: Fence) -> None:
    """A dying process is marked as an OOM victim but not killed, and has no record."""
    group = cgroup.child("limit", 40)
    dying = eat(24, group, hold=True).full()
    hungry = eat(28, group, kill_first=dying.pid, gate=True)
    hungry.start()
    # On the same CPU and with priority, so that memory runs out before the dying process exits.
    for pid in dying.pid, hungry.pid:
        os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))})
    os.sched_setscheduler(hungry.pid, os.SCHED_FIFO, os.sched_param(10))
    with marked_victims() as marked:
        hungry.go()
        dying.die()
        assert hungry.wait() == 0
        assert dying.pid in marked.tids()
    fence()
    assert dying.pid not in [record["victim"]["pid"] for record in watch.records()]


def test_started_before_the_tracer(watch: Watch, cgroup: Cgroup, early_eater: Eater) -> None:
    """The command line of a process older than the daemon is recorded."""
    eater = early_eater
    cgroup.child("limit", 16).write("cgroup.procs", eater.pid)
    eater.go()
    eater.die()
    record = watch.kill(eater)
    assert eater.command_line == record["victim"]["cmdline"]
    assert record["victim"]["comm"] == "early"


def test_forked_without_exec(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """A child without execve has its parent's command line."""
    eater = eat(32, cgroup.child("limit", 16), children=1, extra=["of", "the", "parent"])
    assert eater.wait() == 0
    (child,) = eater.children()
    victim = watch.kill(child)["victim"]
    assert eater.command_line == victim["cmdline"]
    assert eater.pid == victim["ppid"]


def test_renamed_command_line(watch: Watch, cgroup: Cgroup, eat: Eat) -> None:
    """The command line has argv[0] as executed, not the name of the file."""
    record = watch.kill(eat(32, cgroup.child("limit", 16), argv0="worker: idle").die())
    assert record["victim"]["cmdline"][0] == "worker: idle"
    exe = record["victim"]["exe"]
    assert exe.endswith("/eat") if exe or HAS_BTF else exe is None


MEMFD = """
import os, sys
file = os.memfd_create(sys.argv[1], 0)
with open(sys.argv[2], "rb") as program:
    os.write(file, program.read())
os.execv(f"/proc/self/fd/{file}", sys.argv[3:])
"""


@pytest.mark.parametrize("name", ["worker", "x" * 249])
def test_program_in_memory(watch: Watch, cgroup: Cgroup, eat: Eat, name: str) -> None:
    """The path of an executable made by memfd_create(2) is as in /proc/PID/exe."""
    through = (sys.executable, "-c", MEMFD, name, str(binary()))
    eater = eat(32, cgroup.child("limit", 16), gate=True, through=through)
    eater.start()
    exe = os.readlink(f"/proc/{eater.pid}/exe")
    assert exe == f"/memfd:{name} (deleted)"
    eater.go()
    record = watch.kill(eater.die())
    assert record["victim"]["exe"] == exe or (not HAS_BTF and record["victim"]["exe"] is None)
    assert "victim.exe" not in record["truncated"]
