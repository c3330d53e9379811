# SPDX-License-Identifier: Apache-2.0
"""The tracer killed, stopped and doubled while processes die: every kill has one record."""

import random
import signal
import time
from datetime import datetime
from pathlib import Path

from tests.kernel.cgroups import Cgroup
from tests.kernel.environment import ROOT, wait_until
from tests.kernel.test_pins import other_version
from tracer import __version__

from .conftest import Storm
from .runs import Runs

KILLED = 20


def test_killed_in_a_storm(runs: Runs, storm: Storm) -> None:
    """SIGKILL at any moment, again and again: the next run goes on where the last one was."""
    chance = random.Random(KILLED)
    runs.start()
    eater = storm.brew(2500, pause_ms=8)
    for _ in range(KILLED):
        time.sleep(chance.uniform(0.05, 0.4))
        runs.kill()
        time.sleep(chance.choice((0, 0, 0.2)))
        assert runs.start()["adopted"]
        eater = storm.keep_up(eater, 500, pause_ms=8)
    storm.end(eater)
    runs.wait_for_kills(storm.kills())
    runs.stop()
    storm.tally("SIGKILL of the tracer within a storm", KILLED, runs).check()
    assert "Traceback" not in runs.said()


def test_nobody_runs(runs: Runs, storm: Storm) -> None:
    """Kills between two runs are told by the second, with the time of the kill."""
    runs.start()
    runs.stop()
    began = time.time()
    storm.end(storm.brew(200))
    over = time.time()
    time.sleep(6)
    assert runs.start()["adopted"]
    runs.wait_for_kills(200)
    runs.stop()
    storm.tally("no tracer runs", 1, runs).check()
    for record in runs.of_type("oom_kill"):
        assert record["delayed"]
        assert began - 1 <= datetime.fromisoformat(record["time"]).timestamp() <= over + 1


def test_upgraded(runs: Runs, storm: Storm, tmp_path: Path) -> None:
    """Another version, whose programs are others, takes over within a storm, without a gap or doubles."""
    older = other_version(tmp_path, "tracer/__init__.py", __version__, "0.0.1")
    runs.start(root=older)
    eater = storm.brew(600, pause_ms=20)
    for root in (ROOT, older, ROOT, older, ROOT):
        time.sleep(0.5)
        runs.kill()
        assert not runs.start(root=root)["adopted"]
        eater = storm.keep_up(eater, 200, pause_ms=20)
    storm.end(eater)
    runs.wait_for_kills(storm.kills())
    runs.stop()
    storm.tally("an upgrade or a downgrade within a storm", 5, runs).check()


def test_stopped(runs: Runs, storm: Storm) -> None:
    """A tracer that does not get to run for 30 s (SIGSTOP) tells all afterwards."""
    runs.start()
    assert runs.process is not None
    runs.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    storm.end(storm.brew(300, pause_ms=50))
    time.sleep(max(0.0, 30 - (time.monotonic() - began)))
    runs.process.send_signal(signal.SIGCONT)
    runs.wait_for_kills(300)
    runs.stop()
    storm.tally("SIGSTOP of the tracer for 30 s", 1, runs).check()
    assert any(record["delayed"] for record in runs.of_type("oom_kill"))


def test_many_cgroups(runs: Runs, storm: Storm) -> None:
    """10,000 kills in fifty cgroups, as fast as this machine makes them."""
    runs.start()
    eaters = [storm.brew(200, jobs=1) for _ in range(50)]
    storm.end(*eaters)
    runs.wait_for_kills(10_000, 60)
    runs.stop()
    tally = storm.tally("10,000 kills in 50 cgroups at once", 1, runs)
    assert tally.kills == 10_000
    tally.check()


def test_burst_larger_than_the_ring_buffer(runs: Runs, storm: Storm) -> None:
    """What finds no room in the kernel is counted, looked for in the kernel log, and told where it is not there."""
    runs.start()
    assert runs.process is not None
    runs.process.send_signal(signal.SIGSTOP)
    storm.end(storm.brew(4000))
    runs.process.send_signal(signal.SIGCONT)
    wait_until("the account", lambda: runs.of_type("gap"), 60)
    runs.stop()
    storm.tally("a burst larger than the ring buffer", 1, runs).check_told()
    lost = [record for record in runs.of_type("lost") if record["stage"] == "ring_buffer"]
    assert sum(record["count"] for record in lost) > 0


def test_two_at_once(runs: Runs, storm: Storm) -> None:
    """Of two that are started at the same moment one says so and leaves, and the other one traces."""
    first, second = runs.spawn(), runs.spawn()
    wait_until("one has left", lambda: first.poll() is not None or second.poll() is not None)
    leaver, runs.process = (first, second) if first.poll() is not None else (second, first)
    assert leaver.returncode == 1
    said = runs.said().splitlines()
    assert len([line for line in said if "another oomtrace" in line]) == 1, said
    wait_until("it is attached", lambda: runs.of_type("start"))
    storm.end(storm.brew(50))
    runs.wait_for_kills(50)
    runs.stop()
    storm.tally("two tracers started at once", 1, runs).check()


def test_beside_another(runs: Runs, storm: Storm) -> None:
    """One that keeps nothing runs beside it, sees the same, and leaves nothing."""
    runs.start()
    second = Runs(runs.errors.parent / "second")
    second.errors.parent.mkdir()
    second.start(options=["--no-keep"])
    storm.end(storm.brew(20))
    runs.wait_for_kills(20)
    second.wait_for_kills(20)
    second.stop()
    runs.stop()
    victims = [[record["victim"]["tid"] for record in each.of_type("oom_kill")] for each in (runs, second)]
    assert victims[0] == victims[1]
    storm.tally("another tracer beside it", 1, runs).check()


def test_little_memory(runs: Runs, storm: Storm, cgroup: Cgroup) -> None:
    """48 MB are enough for the tracer in a storm; it is not killed, and loses nothing."""
    little = cgroup.child("tracer", 48)
    runs.start(through=["sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', str(little.path)])
    storm.end(*[storm.brew(250) for _ in range(8)])
    runs.wait_for_kills(2000, 60)
    runs.stop()
    assert little.oom_kills() == 0
    storm.tally("48 MB for the tracer within a storm", 1, runs).check()


def test_clock(runs: Runs, storm: Storm) -> None:
    """A clock that is set back and forward changes neither the order nor the number of records."""
    runs.start()
    right_s = time.time() - time.monotonic()
    storm.end(storm.brew(20))
    try:
        for step_s in (-7200, 3600, 0):
            time.clock_settime(time.CLOCK_REALTIME, right_s + time.monotonic() + step_s)
            storm.end(storm.brew(20))
            time.sleep(1.5)  # the counts are compared in the meantime
    finally:
        time.clock_settime(time.CLOCK_REALTIME, right_s + time.monotonic())
    runs.wait_for_kills(80)
    runs.stop()
    storm.tally("the clock set back and forward", 3, runs).check()
    assert [record["seq"] for record in runs.records()] == list(range(len(runs.records())))
