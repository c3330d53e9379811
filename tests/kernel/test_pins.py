# SPDX-License-Identifier: Apache-2.0
"""Pinned captures: they continue in the kernel while no daemon runs, and the next daemon adopts or replaces them."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon, SharedDaemon
from tests.harness.eater import Eater
from tests.harness.environment import (
    ENGINE,
    IN_VM,
    KERNEL_VERSION,
    ROOT,
    TIMEOUT_S,
    TIMEOUT_SCALE,
    attempts,
    not_applicable,
    wait_until,
)
from tests.harness.hanging import states_of_threads, stuck
from tests.harness.kernel_log import KernelLog
from tests.harness.oracles import Record
from tracer.linux import libbpf

from .conftest import Eat, MakeDaemon

SOON_S = 1.0 * TIMEOUT_SCALE
"""A record is written within this time, whatever hangs."""
BPFFS = Path("/sys/fs/bpf")
PINNABLE = KERNEL_VERSION >= (5, 15) or not Path("/sys/bus/event_source/devices/kprobe").exists()
"""Kprobes can be pinned since Linux commit b89fbfbb854c ("bpf: Implement minimal BPF perf link"), in v5.15."""

Start = Callable[..., Daemon]
Kill = Callable[[], Eater]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory for pins, not created yet."""
    path, links = BPFFS / f"oomtrace-test-{os.getpid()}", ids("link")
    yield path
    if path.exists():
        shutil.rmtree(path)
    wait_until("the kernel has freed the links", lambda: ids("link") <= links)


@pytest.fixture
def pins(folder: Path) -> Path:
    """The same, on kernels that can pin kprobes."""
    if not PINNABLE:
        not_applicable("this kernel cannot pin kprobes")
    return folder


@pytest.fixture
def any_engine() -> None:
    """Skip with bcc in a VM, where each start takes a minute, what does not depend on the engine."""
    if IN_VM and ENGINE == "bcc":
        not_applicable("does not depend on the engine; tested with engine core")


@pytest.fixture
def start(make_daemon: MakeDaemon, folder: Path) -> Start:
    """Starts a daemon with these pins, and waits until it is attached."""

    def make(root: Path = ROOT) -> Daemon:
        daemon = make_daemon(pins=folder, root=root)
        daemon.wait_ready()
        return daemon

    return make


@pytest.fixture
def kill(cgroup: Cgroup, eat: Eat, kernel_log: KernelLog) -> Iterator[Kill]:
    """Makes an OOM kill."""
    group = cgroup.child("limit", 8)
    yield lambda: eat(16, group).die()
    kernel_log.poll()  # the kernel overwrites what later tests do not read in time


def kills_of(daemon: Daemon, *pids: int) -> list[Record]:
    """Wait for one record of each of these kills."""
    found: list[Record] = []
    for _ in attempts():
        found = [record for record in daemon.of_type("oom_kill") if record["victim"]["pid"] in pids]
        if len(found) >= len(pids):
            break
    assert sorted(pids) == sorted(record["victim"]["pid"] for record in found)
    return found


def victims(daemon: Daemon) -> list[int]:
    return [record["victim"]["pid"] for record in daemon.of_type("oom_kill")]


def captures(path: Path) -> list[Path]:
    """The directories of pinned captures; the pins of further maps lie beside them."""
    return sorted(each for each in path.iterdir() if each.is_dir()) if path.exists() else []


def ids(kind: str) -> set[int]:
    """The ids of all BPF links, or programs, in the kernel."""
    following = getattr(libbpf.library(), f"bpf_{kind}_get_next_id")
    following.argtypes = [ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)]
    found: set[int] = set()
    number = ctypes.c_uint32(0)
    while following(number.value, ctypes.byref(number)) == 0:
        found.add(number.value)
    return found


def detach(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tracer", "detach", "--pins", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


def other_version(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the source tree in which ``old`` is replaced in one file."""
    root = folder / "other"
    for part in ("tracer", "bpf"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))
    return root


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_no_tracer_runs(pins: Path, start: Start, kill: Kill, by: signal.Signals) -> None:
    """The next daemon records each kill made while none runs, once, with the time of the kill."""
    daemon = start()
    assert (daemon.wait_ready()["pinned"], daemon.wait_ready()["adopted"]) == (True, False)
    before = kill()
    kills_of(daemon, before.pid)
    daemon.terminate(by)
    moments, eaters = [time.time()], []
    for _ in range(3):
        eaters.append(kill())
        time.sleep(0.1)
        moments.append(time.time())
    adopter = start()
    assert (adopter.wait_ready()["pinned"], adopter.wait_ready()["adopted"]) == (True, True)
    missed = kills_of(adopter, *(eater.pid for eater in eaters))
    for record, eater, since, until in zip(missed, eaters, moments, moments[1:], strict=False):
        assert record["victim"]["pid"] == eater.pid
        assert since - 0.02 < datetime.fromisoformat(record["time"][:26] + "+00:00").timestamp() < until
        assert record["victim"]["cmdline"], "its command line was captured"
    after = kill()
    kills_of(adopter, after.pid)
    adopter.stop()
    pids = [record["victim"]["pid"] for record in adopter.of_type("oom_kill")]
    assert before.pid not in pids
    assert len(pids) == len(set(pids))


def test_stuck_victim(pins: Path, start: Start, kill: Kill, cgroup: Cgroup, eat: Eat, tmp_path: Path) -> None:
    """While a victim's memory cannot be read, the successor of a killed daemon records each kill once, and exits."""
    daemon, group = start(), cgroup.child("both", 24)
    with stuck(tmp_path / "mnt", group) as pid:
        other = eat(20, group)  # killed, too, once the kernel gives up on the first victim's memory
        before = kill()
        kills_of(daemon, pid, before.pid)
        daemon.kill()
        assert "D" in states_of_threads(pid)
        missed, began_s = [kill().pid, kill().pid], time.monotonic()
        adopter = start()
        assert adopter.wait_ready()["adopted"]
        after = kill()
        wait_until("its record", lambda: after.pid in victims(adopter), SOON_S)
        kills_of(adopter, *missed)
        assert time.monotonic() - began_s < TIMEOUT_S
        assert "D" in states_of_threads(pid)
        adopter.stop()
    assert [pid for pid in victims(adopter) if pid != other.pid] == [*missed, after.pid]
    assert len(victims(daemon)) == len(set(victims(daemon))), "records of both daemons"
    assert [gap for gap in adopter.of_type("gap") if gap["since"] is not None] == []  # else: of before the first start


def test_adoption(pins: Path, start: Start) -> None:
    """An adopting daemon loads and attaches nothing again."""
    daemon = start()
    links, programs = ids("link"), ids("prog")
    (capture,) = captures(pins)
    assert len(links) >= len([pin for pin in capture.iterdir() if pin.name.startswith("link_")]) > 3
    assert (pins.stat().st_mode & 0o777, capture.stat().st_mode & 0o777) == (0o700, 0o700)
    for by in (signal.SIGKILL, signal.SIGTERM):
        daemon.terminate(by)
        daemon = start()
        assert daemon.wait_ready()["adopted"]
        assert (links, programs) == (ids("link"), ids("prog"))
        assert captures(pins) == [capture]


@pytest.mark.usefixtures("any_engine")
def test_second_tracer(pins: Path, start: Start, make_daemon: MakeDaemon, kill: Kill, tmp_path: Path) -> None:
    """A second daemon with the same pins exits with an error and does not disturb the first."""
    first = start()
    second = make_daemon(tmp_path / "second.json", pins=pins)
    assert second.process.wait(TIMEOUT_S) == 1
    assert "another oomtrace uses" in second.stderr()
    assert "Traceback" not in second.stderr()
    refused = detach(pins)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "another oomtrace uses" in refused.stderr
    kills_of(first, kill().pid)


def test_detach(pins: Path, start: Start, kill: Kill) -> None:
    """Detach removes links and pins; a kill after it is not captured."""
    links = ids("link")
    daemon = start()
    (capture,) = captures(pins)
    assert ids("link") > links
    daemon.stop()
    assert ids("link") > links
    done = detach(pins)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"removed {capture}\n", "")
    assert not pins.exists()
    wait_until("the links are gone", lambda: ids("link") == links)
    unseen = kill()
    again = start()
    assert not again.wait_ready()["adopted"]
    seen = kill()
    kills_of(again, seen.pid)
    assert unseen.pid not in [record["victim"]["pid"] for record in again.of_type("oom_kill")]
    again.stop()
    detach(pins)
    nothing = detach(pins)
    assert (nothing.returncode, nothing.stdout) == (0, f"nothing is pinned in {pins}\n")


@pytest.mark.usefixtures("any_engine")
@pytest.mark.parametrize(
    ("damage", "readable"),
    [
        pytest.param(lambda capture: (capture / "about").unlink(), False, id="half-made"),
        pytest.param(lambda capture: (capture / "events").unlink(), False, id="map-missing"),
        pytest.param(lambda capture: (capture / "foreign").mkdir(), False, id="foreign-folder"),
        pytest.param(
            lambda capture: (capture / "cmdlines").rename(capture / "counters"), False, id="map-of-another-kind"
        ),
        pytest.param(lambda capture: (capture / "link_0").unlink(), True, id="link-missing"),
    ],
)
def test_damaged(pins: Path, start: Start, kill: Kill, damage: Callable[[Path], None], readable: bool) -> None:
    """A damaged capture is reported and removed; its events are read if its maps are readable."""
    links = ids("link")
    daemon = start()
    (capture,) = captures(pins)
    links_of_capture = len(ids("link"))
    daemon.stop()
    missed = kill()
    damage(capture)
    daemon = start()
    assert (daemon.wait_ready()["pinned"], daemon.wait_ready()["adopted"]) == (True, False)
    wait_until("only the new capture is left", lambda: captures(pins) == [capture])
    kills_of(daemon, *([missed.pid] if readable else []), kill().pid)
    stderr = daemon.stderr()
    assert stderr.count(f"oomtrace: the capture pinned in {capture}") == 1, stderr
    assert "Traceback" not in stderr
    wait_until("the old links are gone", lambda: len(ids("link")) == links_of_capture)
    daemon.stop()
    detach(pins)
    wait_until("all links are gone", lambda: ids("link") == links)


@pytest.mark.usefixtures("any_engine")
def test_what_belongs_to_others(pins: Path, start: Start) -> None:
    """Other files in the directory of pins are left alone."""
    (pins / "somebody's").mkdir(parents=True, mode=0o700)
    pins.chmod(0o700)
    start().stop()
    assert len(captures(pins)) == 2
    assert detach(pins).returncode == 0
    assert captures(pins) == [pins / "somebody's"]


def test_other_programs(
    pins: Path, start: Start, kill: Kill, cgroup: Cgroup, eat: Eat, kernel_log: KernelLog, tmp_path: Path
) -> None:
    """An upgrade: events of the old programs are read, new programs replace them, and no kill is lost in between."""
    old = start(other_version(tmp_path, "tracer/__init__.py", '__version__ = "', '__version__ = "0.'))
    (capture,) = captures(pins)
    links = len(ids("link"))
    old.stop()
    missed = kill()
    count = 60 if IN_VM else 150
    storm = eat(16, cgroup.child("storm", 8), children=count, jobs=2, life=600)
    storm.children(count // 10)
    new = start()
    assert (new.wait_ready()["pinned"], new.wait_ready()["adopted"]) == (True, False)
    wait_until("the storm is over", lambda: kernel_log.poll() and storm.ended(), 10 * TIMEOUT_S)
    kills_of(new, missed.pid, *storm.children(count))
    (replacement,) = captures(pins)
    assert replacement.name != capture.name
    wait_until("the old links are gone", lambda: len(ids("link")) == links)
    new.stop()
    assert new.of_type("lost") == []


@pytest.mark.usefixtures("any_engine")
def test_interrupted_upgrade(pins: Path, start: Start, kill: Kill, tmp_path: Path) -> None:
    """A capture that was ended but not read is read by the next daemon, also by one of the same version."""
    start().stop()
    missed = kill()
    ending = f"from tracer.capture.pins import Pins; print(Pins({str(pins)!r}).end_others('')[0].folder)"
    ended = subprocess.run([sys.executable, "-c", ending], cwd=ROOT, check=True, capture_output=True, text=True)
    assert captures(pins) == [Path(ended.stdout.strip())]
    daemon = start()
    assert not daemon.wait_ready()["adopted"]
    kills_of(daemon, missed.pid, kill().pid)
    assert len(captures(pins)) == 1


@pytest.mark.usefixtures("any_engine")
def test_other_layout(pins: Path, start: Start, kill: Kill, tmp_path: Path) -> None:
    """Events of an unknown layout are counted as lost, and new programs take over."""
    old = start(other_version(tmp_path, "tracer/capture/wire.py", "EVENT_LAYOUT = ", "EVENT_LAYOUT = 99"))
    old.stop()
    kill()
    new = start()
    assert (new.wait_ready()["pinned"], new.wait_ready()["adopted"]) == (True, False)
    kills_of(new, kill().pid)
    lost = new.wait_for("lost")
    assert lost["stage"] == "upgrade"
    assert lost["count"] > 0
    assert len(captures(pins)) == 1


@pytest.mark.usefixtures("any_engine")
def test_earlier_capture(pins: Path, start: Start, kill: Kill, tmp_path: Path) -> None:
    """A capture of an earlier version, without maps beside its directory, is read."""
    old = start(other_version(tmp_path, "tracer/__init__.py", '__version__ = "', '__version__ = "0.'))
    (capture,) = captures(pins)
    old.stop()
    missed = kill()
    beside = sorted(each for each in pins.iterdir() if not each.is_dir())
    assert [each.name for each in beside] == [f"{capture.name}-briefs", f"{capture.name}-paths"]
    for each in beside:
        each.unlink()
    new = start()
    assert not new.wait_ready()["adopted"]
    kills_of(new, missed.pid, kill().pid)
    new.stop()
    assert new.of_type("lost") == []
    assert "damaged" not in new.stderr()


@pytest.mark.usefixtures("any_engine")
def test_earlier_version(pins: Path, start: Start, kill: Kill) -> None:
    """An earlier version can end and remove a capture of this version; the next start removes what it leaves behind."""
    start().stop()
    program = f"""
from tracer.capture import pins, programs
programs.MAPS = pins.MAPS = pins.MAPS[:5]
pins._SIDE_MAPS = ()
(ended,) = pins.Pins({str(pins)!r}).end_others("")
assert ended.maps.keys() == set(pins.MAPS)
ended.remove()
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    assert captures(pins) == []
    assert len(list(pins.iterdir())) == 2
    daemon = start()
    assert not daemon.wait_ready()["adopted"]
    kills_of(daemon, kill().pid)
    daemon.stop()
    detach(pins)
    assert not pins.exists()


def test_detach_without_privileges(pins: Path, shared_daemon: SharedDaemon) -> None:
    """A daemon that has dropped the capabilities for attaching can still detach its capture."""
    shared_daemon.stop()
    links = ids("link")
    program = f"""
from tracer.capture import capture
from tracer.linux import privileges
attached = capture.start_capture("{ENGINE}", {str(pins)!r}).attached
privileges.keep_capabilities(privileges.CAP_BPF, privileges.CAP_DAC_READ_SEARCH, privileges.CAP_SYS_PTRACE)
print("attached", flush=True)
input()
attached.detach()
print("detached", flush=True)
input()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        try:
            assert process.stdout.readline() == b"attached\n"
            assert ids("link") > links
            assert captures(pins) != []
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"detached\n"
            assert captures(pins) == []
            wait_until("the links are gone", lambda: ids("link") <= links)
        finally:
            process.communicate(b"\n", timeout=TIMEOUT_S)


@pytest.mark.usefixtures("any_engine")
@pytest.mark.parametrize("where", ["no bpffs", "no parent", "dot"])
def test_nothing_can_be_pinned(make_daemon: MakeDaemon, kill: Kill, tmp_path: Path, where: str) -> None:
    """One line says why nothing is pinned; kills are recorded, and nothing is left behind."""
    folders = {"no bpffs": tmp_path / "pins", "no parent": BPFFS / "none" / "pins", "dot": BPFFS / "oomtrace.test"}
    path = folders[where]
    links, entries = ids("link"), os.listdir(BPFFS)
    daemon = make_daemon(pins=path)
    assert (daemon.wait_ready()["pinned"], daemon.wait_ready()["adopted"]) == (False, False)
    messages = daemon.stderr().splitlines()
    assert len([line for line in messages if "nothing is pinned" in line and str(path) in line]) == 1, messages
    kills_of(daemon, kill().pid)
    daemon.stop()
    assert entries == os.listdir(BPFFS)
    assert os.listdir(tmp_path).count("pins") == 0
    wait_until("the links are gone", lambda: ids("link") <= links)


def test_kprobes_cannot_be_pinned(folder: Path, start: Start, kill: Kill) -> None:
    """Before Linux 5.15 nothing is pinned, with a warning: tracepoints without kprobes would capture less."""
    if PINNABLE:
        not_applicable("this kernel can pin kprobes")
    daemon = start()
    assert (daemon.wait_ready()["pinned"], daemon.wait_ready()["adopted"]) == (False, False)
    assert daemon.stderr().count("cannot pin a kprobe") == 1
    assert captures(folder) == []
    record = kills_of(daemon, kill().pid)[0]
    assert record["source"] == "bpf"
    daemon.stop()
    assert captures(folder) == []
