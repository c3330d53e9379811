# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed, stopped, upgraded or started twice during kills: every kill has one record."""

import random
import signal
import time
from datetime import datetime
from pathlib import Path

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.environment import ROOT, wait_until
from tests.kernel.test_pins import other_version
from tracer import __version__

from .conftest import Storm

KILLED = 20
BURST, SMALL_BURST, BURST_GROUPS = 10_000, 4_000, 20


def test_killed_in_a_storm(daemon: Daemon, storm: Storm) -> None:
    """SIGKILL at random moments: the next daemon continues where the last one was."""
    generator = random.Random(KILLED)
    daemon.start()
    eater = storm.brew(2500, pause_ms=8)
    for _ in range(KILLED):
        time.sleep(generator.uniform(0.05, 0.4))
        daemon.kill()
        time.sleep(generator.choice((0, 0, 0.2)))
        assert daemon.start()["adopted"]
        eater = storm.keep_up(eater, 500, pause_ms=8)
    storm.end(eater)
    daemon.wait_for_kills(storm.kills())
    daemon.stop()
    storm.tally("SIGKILL of the tracer within a storm", KILLED, daemon).check()
    assert "Traceback" not in daemon.stderr()


def test_nobody_runs(daemon: Daemon, storm: Storm) -> None:
    """Kills between two runs are recorded by the second, with the time of the kill."""
    daemon.start()
    daemon.stop()
    began = time.time()
    storm.end(storm.brew(200))
    over = time.time()
    time.sleep(6)
    assert daemon.start()["adopted"]
    daemon.wait_for_kills(200)
    daemon.stop()
    storm.tally("no tracer runs", 1, daemon).check()
    for record in daemon.of_type("oom_kill"):
        assert record["delayed"]
        assert began - 1 <= datetime.fromisoformat(record["time"][:26] + "+00:00").timestamp() <= over + 1


def test_upgraded(daemon: Daemon, storm: Storm, tmp_path: Path) -> None:
    """Another version with other programs takes over during a storm, without gaps or duplicates."""
    older = other_version(tmp_path, "tracer/__init__.py", __version__, "0.0.1")
    daemon.start(root=older)
    eater = storm.brew(600, pause_ms=20)
    for root in (ROOT, older, ROOT, older, ROOT):
        time.sleep(0.5)
        daemon.kill()
        assert not daemon.start(root=root)["adopted"]
        eater = storm.keep_up(eater, 200, pause_ms=20)
    storm.end(eater)
    daemon.wait_for_kills(storm.kills())
    daemon.stop()
    storm.tally("an upgrade or a downgrade within a storm", 5, daemon).check()


def test_stopped(daemon: Daemon, storm: Storm) -> None:
    """A daemon stopped for 30 s (SIGSTOP) records all kills afterwards."""
    daemon.start()
    daemon.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    storm.end(storm.brew(300, pause_ms=50))
    time.sleep(max(0.0, 30 - (time.monotonic() - began)))
    daemon.process.send_signal(signal.SIGCONT)
    daemon.wait_for_kills(300)
    daemon.stop()
    storm.tally("SIGSTOP of the tracer for 30 s", 1, daemon).check()
    assert any(record["delayed"] for record in daemon.of_type("oom_kill"))


def test_many_cgroups(daemon: Daemon, storm: Storm) -> None:
    """10,000 kills in 50 cgroups, as fast as this machine makes them."""
    daemon.start()
    eaters = [storm.brew(200, jobs=1) for _ in range(50)]
    storm.end(*eaters)
    daemon.wait_for_kills(10_000, 60)
    daemon.stop()
    tally = storm.tally("10,000 kills in 50 cgroups at once", 1, daemon)
    assert tally.kills == 10_000
    tally.check()


def test_burst_while_nobody_runs(daemon: Daemon, storm: Storm) -> None:
    """10,000 kills while no daemon runs are recorded by the next daemons, some of which are killed meanwhile."""
    daemon.start()
    daemon.stop()
    burst(storm, BURST)
    for written in (BURST // 8, BURST // 2):
        assert daemon.start()["adopted"]
        daemon.wait_for_kills(written)
        daemon.kill()
    assert daemon.start()["adopted"]
    check_burst("10,000 kills while no tracer runs", BURST, daemon, storm)


def test_burst_while_stopped(daemon: Daemon, storm: Storm) -> None:
    """The same with fewer kills while the daemon is stopped (SIGSTOP)."""
    daemon.start()
    daemon.process.send_signal(signal.SIGSTOP)
    burst(storm, SMALL_BURST)
    daemon.process.send_signal(signal.SIGCONT)
    check_burst("a burst larger than the ring buffer", SMALL_BURST, daemon, storm)


def burst(storm: Storm, kills: int) -> None:
    """Make more kills than fit into the ring buffer, in several cgroups."""
    storm.end(*[storm.brew(kills // BURST_GROUPS, jobs=1) for _ in range(BURST_GROUPS)])


def check_burst(fault: str, kills: int, daemon: Daemon, storm: Storm) -> None:
    """Check that every kill has a record, in order, and that reduced records have the essential fields only."""
    daemon.wait_for_kills(kills, 120)
    daemon.stop()
    tally = storm.tally(fault, 1, daemon)
    assert tally.kills == kills
    tally.check()
    records = daemon.of_type("oom_kill")
    assert {record["victim"]["pid"] for record in records} == storm.victims()
    assert {record["source"] for record in records} == {daemon.of_type("start")[-1]["source"]}
    assert [record["time"] for record in records] == sorted(record["time"] for record in records)
    reduced = [record for record in records if record["reduced"]]
    assert len(reduced) > kills // 2
    groups = {record["victim"]["cgroup"] for record in records if not record["reduced"]}
    assert len(groups) == BURST_GROUPS
    for record in reduced:
        victim, limit = record["victim"], record["limit"]
        assert victim["cgroup"] in groups
        assert limit["cgroup"] == victim["cgroup"]
        assert record["incident"]["scope"] == "memcg"
        assert (victim["comm"], victim["uid"], victim["oom_score_adj"]) == ("eat", 0, 0)
        assert 1 << 20 < victim["anon_rss_bytes"] < victim["total_vm_bytes"]
        assert victim["rss_bytes"] == sum(victim[f"{kind}_rss_bytes"] for kind in ("anon", "file", "shmem"))
        assert (record["candidates"], victim["cmdline"], victim["exe"], limit["usage_bytes"]) == (
            None,
            None,
            None,
            None,
        )
    assert daemon.of_type("lost") == []
    assert daemon.count("oom_exit") == kills


def test_two_at_once(daemon: Daemon, storm: Storm) -> None:
    """Of two daemons started at the same moment one exits with an error, and the other one traces."""
    first, second = daemon.spawn(), daemon.spawn()
    wait_until("one has exited", lambda: first.poll() is not None or second.poll() is not None)
    exited, daemon.process = (first, second) if first.poll() is not None else (second, first)
    assert exited.returncode == 1
    messages = daemon.stderr().splitlines()
    assert len([line for line in messages if "another oomtrace" in line]) == 1, messages
    wait_until("it is attached", lambda: daemon.of_type("start"))
    storm.end(storm.brew(50))
    daemon.wait_for_kills(50)
    daemon.stop()
    storm.tally("two tracers started at once", 1, daemon).check()


def test_beside_another(daemon: Daemon, storm: Storm, tmp_path: Path) -> None:
    """A daemon without pins and state runs beside it, records the same kills, and leaves nothing behind."""
    daemon.start()
    second = Daemon(tmp_path / "second")
    second.folder.mkdir()
    second.start()
    storm.end(storm.brew(20))
    daemon.wait_for_kills(20)
    second.wait_for_kills(20)
    second.stop()
    daemon.stop()
    victims = [[record["victim"]["tid"] for record in each.of_type("oom_kill")] for each in (daemon, second)]
    assert victims[0] == victims[1]
    storm.tally("another tracer beside it", 1, daemon).check()


def test_little_memory(daemon: Daemon, storm: Storm, cgroup: Cgroup) -> None:
    """48 MB are enough for the daemon, verification of its programs included; it loses nothing in a storm."""
    little = cgroup.child("tracer", 48)
    daemon.start(wrapper=["sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', str(little.path)])
    storm.end(*[storm.brew(250) for _ in range(8)])
    daemon.wait_for_kills(2000, 60)
    daemon.stop()
    assert little.oom_kills() == 0
    storm.tally("48 MB for the tracer within a storm", 1, daemon).check()


def test_clock(daemon: Daemon, storm: Storm) -> None:
    """Setting the clock back and forward changes neither the order nor the number of records."""
    daemon.start()
    right_s = time.time() - time.monotonic()
    storm.end(storm.brew(20))
    try:
        for step_s in (-7200, 3600, 0):
            time.clock_settime(time.CLOCK_REALTIME, right_s + time.monotonic() + step_s)
            storm.end(storm.brew(20))
            time.sleep(1.5)  # the audit compares the counts meanwhile
    finally:
        time.clock_settime(time.CLOCK_REALTIME, right_s + time.monotonic())
    daemon.wait_for_kills(80)
    daemon.stop()
    storm.tally("the clock set back and forward", 3, daemon).check()
    assert [record["seq"] for record in daemon.records()] == list(range(len(daemon.records())))
