# SPDX-License-Identifier: Apache-2.0
"""SIGKILLs not sent by the OOM killer: sender and victim, one record each, and which have none."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import bpf_maps
from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.environment import IN_VM, TIMEOUT_S, not_applicable, wait_until
from tests.harness.oracles import Record

from .conftest import Eat, MakeDaemon
from .test_marked import KPROBE_PMU, hidden
from .test_pins import any_engine, folder, pins  # noqa: F401 - fixtures
from .test_record import seconds

ID = "0123456789abcdef" * 4
OTHER_ID = "fedcba9876543210" * 4
NOBODY = 65534
RATE_REGAINED_S = 8.5
"""Time until the rate limit allows 1,024 SIGKILLs at once again."""
RATE_SIZE = 2 * 8
"""``struct rate`` of bpf/sigkill.h."""
KERNEL_HOLD_S = 1.0
"""Time after which a SIGKILL sent by the kernel is known not to be the OOM killer's."""

Start = Callable[..., Daemon]
Run = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(make_daemon: MakeDaemon) -> Start:
    """Starts a daemon with this scope, and waits until it is attached."""

    def make(scope: str, pins: Path | None = None) -> Daemon:  # noqa: F811
        daemon = make_daemon(pins=pins, arguments=["--sigkill", scope])
        daemon.wait_ready()
        return daemon

    return make


@pytest.fixture
def run(cgroup: Cgroup) -> Iterator[Run]:
    """Starts a process in a cgroup, ``sleep`` by default; it is killed before the cgroup is removed."""
    started: list[subprocess.Popen[bytes]] = []

    def make(group: Cgroup, *command: str, user: int = 0, program: str = "") -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-c", program] if program else [*command] or ["sleep", "600"]
        # The shell enters the cgroup and executes the program.
        entering = f"echo $$ >{group.path}/cgroup.procs || exit 9; exec "
        entering += f"setpriv --reuid {user} --clear-groups " if user else ""
        script = [*("sh", "-c", entering + '"$@"', "sh"), *arguments]
        started.append(subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        if not command and not program:
            wait_until("it sleeps", lambda: comm(started[-1].pid) == "sleep")
        return started[-1]

    yield make
    for process in started:
        process.kill()
        process.communicate()


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def container(cgroup: Cgroup, name: str = ID) -> Cgroup:
    return cgroup.child(f"docker-{name}.scope")


def of_cgroup(daemon: Daemon, group: Cgroup) -> list[Record]:
    return [record for record in daemon.of_type("sigkill") if record["victim"]["cgroup"] == group.name]


def of_pid(daemon: Daemon, pid: int) -> list[Record]:
    return [record for record in daemon.of_type("sigkill") if record["victim"]["pid"] == pid]


def record_of(daemon: Daemon, pid: int) -> Record:
    """Wait for the sigkill record of a process, and check that there is one only."""
    wait_until(f"a sigkill record of {pid}", lambda: of_pid(daemon, pid), TIMEOUT_S + KERNEL_HOLD_S)
    (record,) = of_pid(daemon, pid)
    return record


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    assert process.wait(TIMEOUT_S) == -signal.SIGKILL


def test_shell(start: Start, run: Run, cgroup: Cgroup) -> None:
    """kill -9 in a shell: the shell is the sender, with its user and cgroup; the record has the victim's container."""
    daemon = start("containers")
    group, outside = container(cgroup), cgroup.child("outside")
    victim = run(group, user=NOBODY)
    shell = run(outside, "sh", "-c", f"kill -9 {victim.pid}; exec sleep 600", user=NOBODY)
    assert victim.wait(TIMEOUT_S) == -signal.SIGKILL
    record = record_of(daemon, victim.pid)
    assert record["victim"] == {
        "pid": victim.pid,
        "tid": victim.pid,
        "comm": "sleep",
        "uid": NOBODY,
        "cgroup": group.name,
        "is_container_init": False,
    }
    sender = record["sender"]
    assert (sender["pid"], sender["tid"], sender["comm"]) == (shell.pid, shell.pid, "sh")
    assert (sender["uid"], sender["cgroup"], sender["container"]) == (NOBODY, outside.name, None)
    assert (record["container"]["id"], record["container"]["runtime"]) == (ID, "docker")
    assert (record["delayed"], record["source"]) == (False, daemon.wait_ready()["source"])
    assert record["truncated"] == []


def test_containers_alone(start: Start, run: Run, cgroup: Cgroup) -> None:
    """With ``containers``, only victims in containers have a record; the sender may be in one, too."""
    daemon = start("containers")
    plain, long_name = cgroup.child("plain"), cgroup.child("systemd-networkd-wait-online.service.d.too-long")
    group, other = container(cgroup), container(cgroup, OTHER_ID)
    for each in (plain, long_name):
        kill(run(each))
    victim = run(group)
    sender = run(other, program=f"import os, signal; os.kill({victim.pid}, signal.SIGKILL); signal.pause()")
    record = record_of(daemon, victim.pid)
    assert (record["sender"]["pid"], record["sender"]["container"]["id"]) == (sender.pid, OTHER_ID)
    assert of_cgroup(daemon, plain) + of_cgroup(daemon, long_name) == []


def test_all(start: Start, run: Run, cgroup: Cgroup) -> None:
    """With ``all`` every victim has a record."""
    daemon = start("all")
    victim = run(cgroup.child("plain"))
    kill(victim)
    record = record_of(daemon, victim.pid)
    assert (record["sender"]["pid"], record["sender"]["uid"], record["container"]) == (os.getpid(), 0, None)


def test_off(start: Start, run: Run, cgroup: Cgroup, eat: Eat) -> None:
    """With ``off`` there are oom_kill records only."""
    daemon = start("off")
    victim = run(container(cgroup))
    kill(victim)
    pid = eat(16, cgroup.child("limit", 8)).die().pid
    wait_until("the OOM kill", lambda: pid in [each["victim"]["pid"] for each in daemon.of_type("oom_kill")])
    daemon.stop()
    assert daemon.of_type("sigkill") == []


def test_oom_kill(start: Start, cgroup: Cgroup, eat: Eat) -> None:
    """SIGKILLs of the OOM killer have no sigkill record: to victims, processes that share their memory, and groups."""
    daemon = start("all")
    group = container(cgroup)
    group.limit(8 << 20)
    pids = [eat(16, group).die().pid for _ in range(15)]  # more than the kernel reports in full
    sharing = eat(16, group, share_mm=True)
    sharing.die()
    if cgroup.hierarchy.version == 2:
        group.write("memory.oom.group", 1)
        member = eat(1, group, hold=True).full()
        pids += [eat(16, group).die().pid, member.die().pid]
    wait_until("all have oom_kill records", lambda: {*pids, sharing.pid} <= dead(daemon))
    time.sleep(KERNEL_HOLD_S + 0.2)
    daemon.stop()
    assert of_cgroup(daemon, group) == []


def oom(daemon: Daemon) -> list[Record]:
    return daemon.of_type("oom_kill")


def victim(record: Record) -> int:
    return int(record["victim"]["pid"])


def dead(daemon: Daemon) -> set[int]:
    """Pids of the victims of OOM kills, and of the processes that share their memory."""
    shared_mm = {each["pid"] for record in oom(daemon) for each in record["victim"]["shared_mm"]}
    return shared_mm | {victim(record) for record in oom(daemon)}


def test_once(start: Start, run: Run, cgroup: Cgroup) -> None:
    """One record for many threads and many signals; none for a process that has already exited."""
    daemon = start("containers")
    group = container(cgroup)
    threads = "import threading, time; [threading.Thread(target=time.sleep, args=[600]).start() for _ in range(9)]"
    process = run(group, program=threads + "; print(1, flush=True)")
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    tids = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]
    assert len(tids) == 10
    killer = "import ctypes, os, sys\npid, *tids = map(int, sys.argv[1:])\n"
    killer += "for tid in tids:\n for _ in range(3): ctypes.CDLL(None).tgkill(pid, tid, 9)\n"
    killer += "for _ in range(9): os.kill(pid, 9)"
    subprocess.run([sys.executable, "-c", killer, *map(str, [process.pid, *tids])], check=True)
    exited = run(group, "true")
    wait_until("it has exited", lambda: ") Z " in Path(f"/proc/{exited.pid}/stat").read_text())
    os.kill(exited.pid, signal.SIGKILL)
    assert exited.wait(TIMEOUT_S) == 0
    fence = run(group)
    kill(fence)
    record_of(daemon, fence.pid)
    assert [each["victim"]["pid"] for each in of_cgroup(daemon, group)] == [process.pid, fence.pid]


def test_namespace(start: Start, run: Run, cgroup: Cgroup) -> None:
    """A killed container init has a record; the processes that the kernel kills with its PID namespace have none."""
    daemon = start("containers")
    group = container(cgroup)
    outside = run(group, "unshare", "--pid", "--fork", "sh", "-c", "sleep 600 & sleep 600 & wait")
    wait_until("all processes run", lambda: group.read("cgroup.procs").count("\n") == 3)
    init = int(Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text())
    os.kill(init, signal.SIGKILL)
    record = record_of(daemon, init)
    assert record["victim"]["is_container_init"] is True
    outside.wait(TIMEOUT_S)
    wait_until("all are gone", lambda: not group.read("cgroup.procs"))
    time.sleep(KERNEL_HOLD_S + 0.2)
    daemon.stop()
    assert [victim(each) for each in of_cgroup(daemon, group)] == [init]


FORGED = """
import ctypes, os, sys
number = {"x86_64": 129, "aarch64": 138}[os.uname().machine]  # rt_sigqueueinfo
info = (ctypes.c_int * 32)(9, 0, -2, 0, 1, 1)  # si_code SI_TIMER, from process 1
sys.exit(ctypes.CDLL(None).syscall(number, int(sys.argv[1]), 9, info))
"""


def test_forged(start: Start, run: Run, cgroup: Cgroup) -> None:
    """The sender is the process that sends the signal, not the pid that it writes into siginfo."""
    daemon = start("containers")
    victim = run(container(cgroup))
    with subprocess.Popen([sys.executable, "-c", FORGED, str(victim.pid)]) as sender:
        assert sender.wait(TIMEOUT_S) == 0
    assert record_of(daemon, victim.pid)["sender"]["pid"] == sender.pid


TIMER = """
import ctypes
libc = ctypes.CDLL("librt.so.1")
timer, event = ctypes.c_void_p(), (ctypes.c_int * 32)(0, 0, 9, 0)  # SIGEV_SIGNAL with SIGKILL
assert libc.timer_create(1, event, ctypes.byref(timer)) == 0
assert libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 0, 0, 100_000_000), None) == 0
while True: pass
"""
CPU = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass"


@pytest.mark.parametrize("program", [TIMER, CPU], ids=["timer", "rlimit"])
def test_kernel(start: Start, run: Run, cgroup: Cgroup, program: str) -> None:
    """SIGKILL by a timer or RLIMIT_CPU has no sender: the kernel sends it, whichever task is current."""
    daemon = start("containers")
    process = run(container(cgroup), program=program)
    assert process.wait(TIMEOUT_S) == -signal.SIGKILL
    assert record_of(daemon, process.pid)["sender"] is None


def test_timers(start: Start, cgroup: Cgroup, eat: Eat) -> None:
    """2,000 timers that interrupt any task, or the idle task: each SIGKILL has one record."""
    count, rounds = (100, 1) if IN_VM else (500, 2)
    daemon = start("containers")
    groups = [container(cgroup, f"{number:064x}") for number in range(2 * rounds)]
    for number in range(rounds):
        if number:
            time.sleep(RATE_REGAINED_S)
        for eater in [eat(0, group, timers=count, jobs=8) for group in groups[2 * number : 2 * number + 2]]:
            wait_until("all timers have fired", eater.ended, 6 * TIMEOUT_S)
    expected = count * len(groups)
    wait_until("all records", lambda: sum(len(of_cgroup(daemon, group)) for group in groups) >= expected)
    time.sleep(KERNEL_HOLD_S + 0.2)
    assert daemon.stop()["lost"] == 0
    for group in groups:
        records = of_cgroup(daemon, group)
        assert (len(records), len({victim(each) for each in records})) == (count, count)
        assert [each for each in records if each["sender"] is not None] == []


ASLEEP = TIMER.replace("while True: pass", "import signal; signal.pause()")


def test_timer_while_idle(start: Start, run: Run, cgroup: Cgroup, eat: Eat) -> None:
    """A timer that interrupts the idle task right after an OOM kill is not taken for the OOM killer."""
    daemon = start("containers")
    eat(16, cgroup.child("limit", 8)).die()
    group = container(cgroup)
    for _ in range(3):
        process = run(group, program=ASLEEP)
        assert process.wait(TIMEOUT_S) == -signal.SIGKILL
        assert record_of(daemon, process.pid)["sender"] is None


TRACER = """
import ctypes, os, sys
ptrace, pid, nothing = ctypes.CDLL(None).ptrace, int(sys.argv[1]), ctypes.c_void_p(0)
assert ptrace(16, pid, nothing, nothing) == 0  # PTRACE_ATTACH
os.waitpid(pid, 0)
assert ptrace(7, pid, nothing, ctypes.c_void_p(9)) == 0  # PTRACE_CONT
os.waitpid(pid, 0)
"""


def test_unseen(start: Start, run: Run, cgroup: Cgroup) -> None:
    """A debugger continues a process with SIGKILL, which hits no tracepoint: the record is made at its exit."""
    daemon = start("containers")
    process = run(container(cgroup))
    subprocess.run([sys.executable, "-c", TRACER, str(process.pid)], check=True)
    assert process.wait(TIMEOUT_S) == -signal.SIGKILL
    record = record_of(daemon, process.pid)
    assert (record["sender"], record["from_kernel"], record["container"]["id"]) == (None, None, ID)


def test_cgroup_kill(start: Start, run: Run, cgroup: Cgroup) -> None:
    """The sender is the process that writes to cgroup.kill."""
    group = container(cgroup)
    if not (group.path / "cgroup.kill").exists():
        not_applicable("cgroup.kill exists since Linux 5.14, in cgroup v2")
    daemon = start("containers")
    pids = [run(group).pid for _ in range(3)]
    group.write("cgroup.kill", 1)
    assert [record_of(daemon, pid)["sender"]["pid"] for pid in pids] == [os.getpid()] * 3


@pytest.mark.parametrize("reads", [pytest.param(True, id="reads"), pytest.param(False, id="stopped")])
def test_storm(start: Start, cgroup: Cgroup, eat: Eat, reads: bool) -> None:
    """500 SIGKILLs in one container during 200 OOM kills: all are recorded, also when the daemon reads late."""
    sigkills, oom_kills = (300, 40) if IN_VM else (500, 200)
    daemon = start("containers")
    group = container(cgroup)
    if not reads:
        daemon.process.send_signal(signal.SIGSTOP)
    try:
        killer = eat(0, group, kills=sigkills, hold=True, life=600)
        eater = eat(16, cgroup.child("storm", 8), children=oom_kills, jobs=2, life=600)
        wait_until("the OOM kills are over", eater.ended, 20 * TIMEOUT_S)
        killer.full()
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    pids = set(eater.children(oom_kills))
    wait_until("all OOM kills", lambda: pids <= {victim(each) for each in oom(daemon)})
    wait_until("all SIGKILLs", lambda: len(of_cgroup(daemon, group)) >= sigkills)
    assert {each["sender"]["pid"] for each in of_cgroup(daemon, group)} == {killer.pid}
    assert len({each["id"] for each in of_cgroup(daemon, group)}) == sigkills
    assert daemon.stop()["lost"] == 0


@pytest.mark.parametrize("kprobes", [True, pytest.param(False, marks=pytest.mark.vm)], ids=["all", "tracepoints"])
def test_oom_kills_alone(start: Start, cgroup: Cgroup, eat: Eat, tmp_path: Path, kprobes: bool) -> None:
    """OOM kills, more than the kernel logs in full, do not count against the rate limit of SIGKILLs."""
    count = 20 if IN_VM else 100
    with contextlib.nullcontext() if kprobes else hidden(KPROBE_PMU, tmp_path):
        daemon = start("containers")
    group = container(cgroup)
    group.limit(10 << 20)
    eater = eat(16, group, children=count, jobs=2, life=600)
    wait_until("the OOM kills are over", eater.ended, 20 * TIMEOUT_S)
    pids = set(eater.children(count))  # of some the mark tells the tid only
    wait_until("all OOM kills", lambda: pids <= {each["victim"]["tid"] for each in oom(daemon)})
    with_pid = [victim(each) for each in oom(daemon) if each["victim"]["pid"] is not None]
    wait_until("all exits", lambda: len(daemon.of_type("oom_exit")) >= len(with_pid))
    with bpf_maps.opened(daemon.process.pid, "sigkill_rate") as rate:
        assert bpf_maps.read(rate, 0, RATE_SIZE) == bytes(RATE_SIZE)
    assert daemon.stop()["lost"] == 0
    assert [daemon.of_type("sigkill"), daemon.of_type("lost")] == [[], []]


def test_flood(start: Start, run: Run, cgroup: Cgroup, eat: Eat) -> None:
    """SIGKILLs in one container are rate-limited and the excess is counted; those in other containers are recorded."""
    if IN_VM:
        not_applicable("without KVM the kill rate is too low")
    count = 6000
    daemon = start("containers")
    group, other = container(cgroup), container(cgroup, OTHER_ID)
    killer = eat(0, group, kills=count, hold=True, life=600)
    wait_until("a lost record", lambda: daemon.of_type("lost"), 10 * TIMEOUT_S)
    neighbour = run(other)
    kill(neighbour)
    record_of(daemon, neighbour.pid)
    wait_until("all are killed", killer.full, 10 * TIMEOUT_S)
    daemon.stop()
    lost = [each["count"] for each in daemon.of_type("lost") if each["stage"] == "sigkill"]
    assert 0 < sum(lost) == count - len(of_cgroup(daemon, group))


@pytest.mark.usefixtures("any_engine")
def test_option_of_adopted_capture(start: Start, run: Run, cgroup: Cgroup, pins: Path) -> None:  # noqa: F811
    """A changed scope replaces the capture at the next start; with the same scope, kills in between are recorded."""
    group = container(cgroup)
    start("off", pins).stop()
    daemon = start("containers", pins)
    assert daemon.wait_ready()["adopted"] is False
    first = run(group)
    kill(first)
    record_of(daemon, first.pid)
    daemon.stop()
    between = run(group)
    kill(between)
    daemon = start("containers", pins)
    assert [each["adopted"] for each in daemon.of_type("start")][-1] is True
    record_of(daemon, between.pid)
    assert len(of_pid(daemon, first.pid)) <= 1
    daemon.stop()
    assert daemon.of_type("lost") == []
    assert len(of_pid(daemon, between.pid)) == 1


@pytest.mark.usefixtures("any_engine")
def test_since_of_adopted_capture(start: Start, cgroup: Cgroup, eat: Eat, pins: Path) -> None:  # noqa: F811
    """Losses while no daemon runs are dated since the last run, even when the state is deleted."""
    if IN_VM:
        not_applicable("without KVM the kill rate is too low")
    first = start("containers", pins)
    attached = seconds(first.wait_ready()["time"])
    wait_until("the first second is over", lambda: time.time() > attached + 1)
    stopped = seconds(first.stop()["time"])
    eat(0, container(cgroup), kills=1500, hold=True, life=600).full()
    flooded = time.time()
    time.sleep(0.5)
    shutil.rmtree(first.state)
    daemon = start("containers", pins)
    lost = daemon.wait_for("lost")
    assert (lost["stage"], lost["count"] > 0) == ("sigkill", True)
    assert stopped - 0.5 < seconds(lost["since"]) < flooded
    assert seconds(lost["since"]) <= min(seconds(each["time"]) for each in daemon.of_type("sigkill"))
    daemon.stop()
