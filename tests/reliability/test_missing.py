# SPDX-License-Identifier: Apache-2.0
"""Hosts without bpffs or tracefs, and times when nothing is attached: kills are recovered from the kernel log."""

import signal
from collections.abc import Callable

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.environment import attempts, not_applicable, wait_until
from tests.kernel.conftest import Eat
from tests.kernel.test_brief import small_rings

from .conftest import Storm

WITHOUT_BPFFS = ["unshare", "--mount", "sh", "-c", 'umount --all-targets --lazy /sys/fs/bpf; exec "$@"', "sh"]
WITHOUT_TRACEFS = [
    "unshare", "--mount", "sh", "-c",
    'umount --lazy /sys/kernel/tracing; umount --lazy /sys/kernel/debug/tracing; exec "$@"', "sh",
]  # fmt: skip

BURST = 700
"""More kills with long command lines than fit into the ring buffer; that of brief events is small here."""
GROUPS = 10


def test_without_bpffs(daemon: Daemon, storm: Storm) -> None:
    """Without bpffs the capture ends with the daemon; later kills are recovered from the kernel log."""
    start = daemon.start(wrapper=WITHOUT_BPFFS)
    assert not start["pinned"]
    assert "bpffs" in daemon.stderr()
    storm.end(storm.brew(10, jobs=1))
    daemon.wait_for_kills(10)
    daemon.stop()
    storm.end(storm.brew(10, jobs=1))
    assert not daemon.start(wrapper=WITHOUT_BPFFS)["adopted"]
    daemon.wait_for_kills(20)
    daemon.stop()
    tally = storm.tally("no bpffs: nothing is attached between two runs", 1, daemon)
    tally.check()
    assert tally.from_log == 10
    between = [record for record in daemon.of_type("oom_kill") if record["source"] == "kernel_log"]
    assert all(record["delayed"] for record in between)


def test_without_tracefs(daemon: Daemon, storm: Storm) -> None:
    """Without tracefs only the names of allocation flags are missing."""
    daemon.start(wrapper=WITHOUT_TRACEFS)
    storm.end(storm.brew(20))
    daemon.wait_for_kills(20)
    daemon.stop()
    storm.tally("no tracefs", 1, daemon).check()


def test_before_the_first_start(fresh_daemon: Daemon, storm: Storm) -> None:
    """Kills before the first start since boot are recovered from the kernel log, or counted in a gap record."""
    storm.end(storm.brew(10, jobs=1))
    fresh_daemon.start()
    victims = storm.victims()
    wait_until("the records", lambda: victims <= pids(fresh_daemon))
    first = len(fresh_daemon.of_type("oom_kill"))
    recovered = fresh_daemon.of_type("oom_kill")
    assert {record["source"] for record in recovered if record["victim"]["tid"] in victims} == {"kernel_log"}
    fresh_daemon.stop()
    fresh_daemon.start()
    storm.end(storm.brew(10, jobs=1))
    fresh_daemon.wait_for_kills(first + 10)
    stop = fresh_daemon.stop()
    assert len(fresh_daemon.of_type("oom_kill")) == first + 10, "kills from the log are recorded once"
    missing = sum(record["missing"] for record in fresh_daemon.of_type("gap"))
    assert first + 10 + missing <= stop["oom_kills"]


def test_no_backfill(fresh_daemon: Daemon, storm: Storm) -> None:
    """With --no-backfill they are counted in a gap record."""
    storm.end(storm.brew(10, jobs=1))
    fresh_daemon.start("--no-backfill")
    wait_until("the gap", lambda: fresh_daemon.of_type("gap"))
    stop = fresh_daemon.stop()
    (gap,) = fresh_daemon.of_type("gap")
    assert gap["since"] is None
    assert gap["oom_kills"] == gap["missing"] == stop["oom_kills"]
    assert gap["cgroups"]
    assert {each["records"] for each in gap["cgroups"]} == {0}
    assert fresh_daemon.of_type("oom_kill") == []


def test_gap_by_cgroup(daemon: Daemon, cgroup: Cgroup, eat: Eat) -> None:
    """The gap record names the cgroup whose kills did not fit into the ring buffers, with its count, and no other."""
    seen, burst = cgroup.child("seen", 8), cgroup.child("burst", 8)
    overflow(daemon, eat, burst, lambda: storm_in(eat, seen, 20))
    recorded = sum(record["victim"]["cgroup"] == burst.name for record in daemon.of_type("oom_kill"))
    assert daemon.count("oom_kill") == 20 + recorded
    (gap,) = daemon.of_type("gap")
    assert gap["cgroups"] == [{"cgroup": burst.name, "oom_kills": BURST, "records": recorded}]
    assert (gap["oom_kills"], gap["records"], gap["missing"]) == (20 + BURST, 20 + recorded, BURST - recorded)
    storm_in(eat, seen, 1)
    daemon.wait_for_kills(21 + recorded)
    daemon.stop()
    assert len(daemon.of_type("gap")) == 1, "one gap record"


def test_group_kills_hide_nothing(daemon: Daemon, cgroup: Cgroup, eat: Eat) -> None:
    """First victims of group kills, which the kernel counts once or twice, do not hide missing kills.

    The victim is not the process that allocates, so it may exit before the kernel counts it again.
    """
    if cgroup.hierarchy.version == 1:
        not_applicable("cgroup v1 has no memory.oom.group")
    burst = cgroup.child("burst", 8)
    groups = [cgroup.child(f"group{number}", 48) for number in range(GROUPS)]

    def kill_groups() -> None:
        for group in groups:
            group.write("memory.oom.group", 1)
            holder = eat(32, group, hold=True, life=600).full()
            eat(48, group, life=600).die()
            holder.die()

    overflow(daemon, eat, burst, kill_groups)
    recorded = sum(record["victim"]["cgroup"] == burst.name for record in daemon.of_type("oom_kill"))
    counted = [group.oom_kills() for group in groups]
    print(f"{GROUPS} group kills; the kernel counted the first victim once in {counted.count(2)} of them")
    assert set(counted) <= {2, 3}
    (gap,) = daemon.of_type("gap")
    assert gap["cgroups"] == [{"cgroup": burst.name, "oom_kills": BURST, "records": recorded}]
    assert gap["oom_kills"] == BURST + sum(counted)
    assert (gap["records"], gap["missing"]) == (recorded + 2 * GROUPS, BURST - recorded)
    daemon.stop()


def overflow(daemon: Daemon, eat: Eat, burst: Cgroup, before: Callable[[], None]) -> None:
    """Start a daemon and stop it; call ``before``, then overflow the ring buffers with kills in ``burst``."""
    ledger = daemon.state / "ledger"
    header = ledger.read_bytes()[:256]
    daemon.start("--no-backfill", root=small_rings(daemon.folder, "briefs"))
    wait_until("the ledger is written", lambda: ledger.read_bytes()[:256] != header)
    daemon.process.send_signal(signal.SIGSTOP)
    before()
    storm_in(eat, burst, BURST)
    assert burst.oom_kills() == BURST
    daemon.process.send_signal(signal.SIGCONT)
    wait_until("the gap record", lambda: daemon.of_type("gap"), 60)


def storm_in(eat: Eat, group: Cgroup, kills: int) -> None:
    """Kill this many processes with long command lines, which fill the ring buffer soon."""
    eater = eat(16, group, children=kills, jobs=2, life=600, extra=["x" * 900])
    for _ in attempts(300):
        if eater.ended():
            break


def pids(daemon: Daemon) -> set[int]:
    return {record["victim"]["tid"] for record in daemon.of_type("oom_kill")}
