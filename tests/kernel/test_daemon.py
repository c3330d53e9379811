# SPDX-License-Identifier: Apache-2.0
"""The daemon from start to stop, and its output files. Each test runs its own daemon."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import oracles
from tests.harness.cgroups import Cgroup
from tests.harness.environment import KERNEL_VERSION, ROOT, wait_until
from tests.harness.kernel_log import KernelLog
from tests.harness.watch import Watch
from tracer.delivery.sinks.file_lock import hold_file_lock
from tracer.linux.privileges import PERF_PARANOID

from .conftest import Eat, MakeDaemon


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_stop(
    make_daemon: MakeDaemon, kernel_log: KernelLog, cgroup: Cgroup, eat: Eat, tmp_path: Path, by: signal.Signals
) -> None:
    """On SIGTERM or SIGINT the daemon writes pending records, then a stop record, and exits with 0."""
    daemon = make_daemon()
    start = daemon.wait_ready()
    watch = Watch(daemon, kernel_log, tmp_path)
    eater = eat(16, cgroup.child("limit", 8)).die()
    stop = daemon.stop(by)
    assert eater.pid == watch.kill(eater)["victim"]["pid"]
    assert len(daemon.of_type("oom_kill")) == stop["records"]
    assert stop["lost"] == 0
    assert start["oom_kills"] < stop["oom_kills"] <= oracles.vmstat_oom_kills()
    assert list(range(len(daemon.records()))) == [record["seq"] for record in daemon.records()]


def test_output_files(make_daemon: MakeDaemon, kernel_log: KernelLog, cgroup: Cgroup, eat: Eat, tmp_path: Path) -> None:
    """Two outputs get the same lines; a new file has mode 0640, an existing one keeps its content and mode."""
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    old.write_bytes(b"kept\n")
    old.chmod(0o600)
    umask = os.umask(0)
    try:
        daemon = make_daemon(new, old)
        daemon.wait_ready()
    finally:
        os.umask(umask)
    record = Watch(daemon, kernel_log, tmp_path).kill(eat(16, cgroup.child("limit", 8)).die())
    daemon.stop()
    assert b"kept\n" + new.read_bytes() == old.read_bytes()
    assert record in [json.loads(line) for line in new.read_bytes().splitlines()]
    assert stat.filemode(new.stat().st_mode) == "-rw-r-----"
    assert stat.filemode(old.stat().st_mode) == "-rw-------"


def test_file_renamed_meanwhile(make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat, tmp_path: Path) -> None:
    """After a rename by logrotate lines go to a new file, with SIGHUP or without; each line is in one file."""
    daemon = make_daemon()
    daemon.wait_ready()
    output = daemon.output
    group, rotated, older = cgroup.child("limit", 8), tmp_path / "records.json.1", tmp_path / "records.json.2"
    first = eat(16, group).die()
    wait_until("the first record is there", lambda: kills_in(output) == [first.pid])
    output.rename(rotated)
    daemon.process.send_signal(signal.SIGHUP)
    wait_until("a new file is there", output.exists)
    second = eat(16, group).die()
    wait_until("the second record is there", lambda: kills_in(output) == [second.pid])
    output.rename(older)
    third = eat(16, group).die()
    wait_until("the third record is there", lambda: output.exists() and kills_in(output) == [third.pid])
    daemon.process.terminate()
    assert daemon.process.wait(10) == 0
    assert (kills_in(rotated), kills_in(older)) == ([first.pid], [second.pid])


def kills_in(output: Path) -> list[int]:
    records = map(json.loads, output.read_bytes().splitlines())
    return [record["victim"]["pid"] for record in records if record["type"] == "oom_kill"]


@pytest.mark.parametrize("network", [False, True])
def test_privileges(make_daemon: MakeDaemon, tmp_path: Path, network: bool) -> None:
    """Once attached, all threads have dropped the capabilities for attaching, the one that tidies files included."""
    kept = {2: "CAP_DAC_READ_SEARCH", 19: "CAP_SYS_PTRACE", 39: "CAP_BPF"}
    rotating = tmp_path / "rotating"
    output = ["--output", f"file:{rotating}?rotate-bytes=1M"]
    with hold_file_lock(f"{tmp_path}/.rotating.tidy"):  # the tidying thread waits for this lock
        daemon = make_daemon(arguments=[*output, *(["--network"] if network else [])])
        daemon.wait_ready()
        tasks = Path(f"/proc/{daemon.process.pid}/task")
        wait_until(
            "the tidy thread",
            lambda: 19 in [os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in tasks.iterdir()],
        )
        statuses = [path.read_text() for path in tasks.glob("*/status")]
    for text in statuses:
        status = dict(line.split(":\t", 1) for line in text.splitlines())
        held = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
        permitted = sum(1 << number for number in kept)
        assert held == {"CapInh": 0, "CapPrm": permitted, "CapEff": permitted, "CapAmb": 0}
        assert status["NoNewPrivs"] == "1"


def test_least_privileges(
    make_daemon: MakeDaemon, kernel_log: KernelLog, cgroup: Cgroup, eat: Eat, tmp_path: Path
) -> None:
    """The documented minimum of capabilities is enough to trace, and for ``doctor``."""
    needed = "-all,+bpf,+perfmon"
    if int(Path(PERF_PARANOID).read_text()) > 2:
        needed += ",+sys_admin"
    if KERNEL_VERSION < (5, 11):  # maps count as locked memory
        needed += ",+sys_resource"
    wrapper = ["setpriv", "--bounding-set", needed]
    doctor = subprocess.run(
        [*wrapper, sys.executable, "-m", "tracer", "doctor"], cwd=ROOT, capture_output=True, text=True
    )
    assert (doctor.returncode, "MISSING" in doctor.stdout) == (0, False), doctor.stdout
    daemon = make_daemon(wrapper=wrapper)
    daemon.wait_ready()
    Watch(daemon, kernel_log, tmp_path).kill(eat(16, cgroup.child("limit", 8)).die())


BOTH_DOCTORS = """
import contextlib, os
import typer
from tracer.commands.doctor import doctor

for user in (0, 65534):
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    with contextlib.suppress(typer.Exit):
        doctor(as_json=True)
    print("end of report", flush=True)
"""
"""In one process, because user nobody may be unable to read the checkout and Python's modules."""


def test_doctor_as_nobody() -> None:
    """doctor reports tracefs as unreadable, not as missing; a check that passes has no remedy."""
    done = subprocess.run([sys.executable, "-c", BOTH_DOCTORS], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    root, nobody = (json.loads(text) for text in done.stdout.split("end of report\n")[:-1])
    for report in (root, nobody):
        assert all(check["ok"] == (check["remedy"] == "") for check in report["checks"]), report
    assert (root["can_trace"], nobody["can_trace"]) == (True, False)
    (mounted,) = (check for check in root["checks"] if check["name"] == "tracefs")
    (unreadable,) = (check for check in nobody["checks"] if check["name"] == "tracefs")
    assert (mounted["ok"], unreadable["ok"]) == (True, False)
    assert unreadable["finding"] == f"{mounted['finding']} is mounted, but this user cannot read it"
    assert not unreadable["remedy"].startswith("mount ")


def test_service_manager(make_daemon: MakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service manager gets READY, WATCHDOG, RELOADING and STOPPING."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        daemon = make_daemon()
        assert manager.recv(4096) == b"READY=1"
        daemon.wait_ready()
        assert manager.recv(4096) == manager.recv(4096) == b"WATCHDOG=1"
        daemon.process.send_signal(signal.SIGHUP)
        heard = [manager.recv(4096) for _ in range(2)]
        while b"WATCHDOG=1" in heard:
            heard.remove(b"WATCHDOG=1")
            heard.append(manager.recv(4096))
        assert heard[0].startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert heard[1] == b"READY=1"
        daemon.stop()
        while (last := manager.recv(4096)) == b"WATCHDOG=1":
            pass
        assert last == b"STOPPING=1"


def test_file_emptied_meanwhile(make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat) -> None:
    """After copytruncate by logrotate, lines are written from the start of the file."""
    daemon = make_daemon()
    daemon.wait_ready()
    output = daemon.output
    os.truncate(output, 0)
    eater = eat(16, cgroup.child("limit", 8)).die()
    wait_until("the records", lambda: output.read_bytes().count(b"\n") >= 2)
    assert eater.pid in [json.loads(line).get("victim", {}).get("pid") for line in output.read_bytes().splitlines()]


def test_no_kills(make_daemon: MakeDaemon) -> None:
    """Without kills there are a start and a stop record, and no traceback on stderr."""
    daemon = make_daemon()
    daemon.wait_ready()
    daemon.stop()
    kills = len(daemon.of_type("oom_kill"))  # other tests may make some
    assert kills == daemon.records()[-1]["oom_kills"] - daemon.records()[0]["oom_kills"]
    if not kills:
        assert [record["type"] for record in daemon.records()] == ["start", "stop"]
    assert "Traceback" not in daemon.stderr()
