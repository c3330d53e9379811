# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed at each step of recording lost events, a gap or recovered kills: each has one record."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.environment import attempts, wait_until
from tests.harness.http_peer import Peer, serving
from tests.harness.oracles import Record
from tests.kernel.test_brief import small_rings
from tracer.capture.programs import COUNTER_LOST, ProgramCounters
from tracer.linux import libbpf

from .conftest import Storm
from .tally import Tally
from .test_missing import WITHOUT_BPFFS

STEPS = 60
"""Upper bound of the steps from the start to the saved ledger."""
QUIET_S = 4.0
"""The audit takes two seconds."""
KILLS = 3
BURST = 80
"""More kills than both ring buffers hold at their smallest size."""
KILL_AT_STEP = '''
def _end_at() -> None:
    """Kill this process with SIGKILL after a number of writes: to files, to stderr, or to a counter."""
    import signal

    from tracer.capture.programs import ProgramCounters

    left = int(os.environ.pop("OOMTRACE_TEST_STEP", "0"))

    def counted(real):
        def call(*arguments):
            nonlocal left
            result = real(*arguments)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    os.write, os.pwrite = counted(os.write), counted(os.pwrite)
    ProgramCounters.write = counted(ProgramCounters.write)


_end_at()


def main() -> int:'''


def killing_itself(folder: Path, *small: str) -> Path:
    """A copy of the source tree whose daemon kills itself at the step given in its environment.

    The ring buffers ``small`` have the smallest size.
    """
    root = small_rings(folder, *small)
    file = root / "tracer/daemon/daemon.py"
    text = file.read_text()
    assert "def main() -> int:" in text
    file.write_text(text.replace("def main() -> int:", KILL_AT_STEP))
    return root


class Collector:
    """A second output over HTTP. While it hangs it answers no request, and refuses these requests afterwards."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._answers = threading.Event()
        self._answers.set()
        peer.status = self._status
        self.options = ["--output", f"http://127.0.0.1:{peer.port}/"]

    def _status(self, _body: bytes) -> int:
        if self._answers.is_set():
            return 200
        self._answers.wait()
        return 503

    def hang(self) -> None:
        self._answers.clear()

    def answer(self) -> None:
        self._answers.set()

    def records(self) -> list[Record]:
        """The records of the requests that succeeded."""
        accepted = [asked.body for asked in self._peer.asked if asked.status == 200]
        return [json.loads(line) for body in accepted for line in body.splitlines()]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that answers."""
    with serving() as peer:
        made = Collector(peer)
        yield made
        made.answer()


def killed_at(step: int, daemon: Daemon, root: Path, arguments: Sequence[str], wrapper: Sequence[str]) -> bool:
    """Run the daemon until this step; whether it was killed. Once all is recorded, it is stopped."""
    environment = ["env", f"OOMTRACE_TEST_STEP={step}"]
    daemon.spawn(*arguments, wrapper=[*environment, *wrapper], root=root)
    began = daemon.count("start")
    quiet_s = 0.0
    for _ in attempts(60):
        if daemon.process.poll() is not None:
            break
        quiet_s = quiet_s or (time.monotonic() if daemon.count("start") > began else 0.0)
        if quiet_s and time.monotonic() - quiet_s > QUIET_S:
            daemon.process.terminate()
            break
    status = daemon.process.wait(30)
    assert status in (0, -signal.SIGKILL), daemon.stderr()[-2000:]
    return status != 0


def at_each_step(
    daemon: Daemon,
    root: Path,
    lose: Callable[[], None],
    is_recorded: Callable[[int], bool],
    *arguments: str,
    wrapper: Sequence[str] = (),
    collector: Collector | None = None,
    stride: int = 1,
    has_more_steps: bool = False,
) -> int:
    """Kill a daemon at its first step, the next one ``stride`` steps later, and so on; the number of rounds.

    Each round begins with ``lose``, and ends with a daemon that runs until ``is_recorded`` holds for the number of
    rounds. A collector hangs until then. ``has_more_steps``: the daemon does not end by itself within STEPS.
    """
    arguments = (*arguments, *(collector.options if collector else ()))
    for rounds, step in enumerate(range(1, STEPS, stride), 1):
        lose()
        if collector:
            collector.hang()
        was_killed = killed_at(step, daemon, root, arguments, wrapper)
        if collector:
            collector.answer()
        daemon.start(*arguments, root=root, wrapper=wrapper)
        wait_until(f"the records after step {step}", lambda: is_recorded(rounds))  # noqa: B023
        daemon.stop()
        if not was_killed:
            assert step > 5
            return rounds
    assert has_more_steps, f"more than {STEPS} steps"
    return rounds


def ids(records: Sequence[Record]) -> list[str]:
    return [record["id"] for record in records]


def of_type(kind: str, daemon: Daemon, collector: Collector | None) -> list[list[Record]]:
    """The records of a type, by output; of those that the collector has twice, one.

    Over a network a record is delivered at least once: a daemon that is killed cannot know what was accepted before.
    """
    others = [{each["id"]: each for each in collector.records() if each["type"] == kind}] if collector else []
    return [daemon.of_type(kind), *(list(records.values()) for records in others)]


def events_lost(daemon: Daemon) -> int:
    """The programs' count of events that found no room, from their pinned map."""
    assert daemon.pins is not None
    (pinned,) = daemon.pins.glob("*/counters")
    descriptor = libbpf.library()["bpf_obj_get"](os.fsencode(pinned))
    if descriptor < 0:
        raise libbpf.last_error()
    try:
        return ProgramCounters({"counters": descriptor}).read(COUNTER_LOST)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("hangs", [False, True], ids=["file", "collector-hangs"])
def test_gap(daemon: Daemon, storm: Storm, tmp_path: Path, collector: Collector, hangs: bool) -> None:
    """Kills that no program saw have one gap record."""
    other = collector if hangs else None
    daemon.start("--no-backfill", wrapper=WITHOUT_BPFFS)
    daemon.stop()
    rounds = at_each_step(
        daemon,
        killing_itself(tmp_path),
        lambda: storm.end(storm.brew(KILLS, jobs=1)),
        lambda count: len(daemon.of_type("gap")) >= count,
        "--no-backfill",
        wrapper=WITHOUT_BPFFS,
        collector=other,
        stride=3 if hangs else 1,
    )
    for gaps in of_type("gap", daemon, other):
        assert len(set(ids(gaps))) == len(gaps) == rounds
        assert [gap["missing"] for gap in gaps] == [KILLS] * rounds
    # Not in the documentation's table: these kills lose their records on purpose.
    Tally.of("SIGKILL at each step of recording a gap", rounds, storm.kills(), daemon.records()).check_accounted()


@pytest.mark.parametrize("hangs", [False, True], ids=["file", "collector-hangs"])
def test_recovered(daemon: Daemon, storm: Storm, tmp_path: Path, collector: Collector, hangs: bool) -> None:
    """Kills that no program saw, and that the kernel log contains, have one record each."""
    other = collector if hangs else None
    daemon.start(wrapper=WITHOUT_BPFFS)
    daemon.stop()
    rounds = at_each_step(
        daemon,
        killing_itself(tmp_path),
        lambda: storm.end(storm.brew(KILLS, jobs=1)),
        lambda count: daemon.count("oom_kill") >= KILLS * count,
        wrapper=WITHOUT_BPFFS,
        collector=other,
        stride=3 if hangs else 1,
    )
    victims = storm.victims()
    for kills in of_type("oom_kill", daemon, other):
        assert len(kills) == len(set(ids(kills))) == KILLS * rounds
        assert {kill["victim"]["tid"] for kill in kills} == victims
        assert {kill["source"] for kill in kills} == {"kernel_log"}
    for gaps in of_type("gap", daemon, other):
        assert gaps == []
    fault = "SIGKILL at each step of recovering kills" + (" while another output hangs" if hangs else "")
    storm.tally(fault, rounds, daemon).check()


@pytest.mark.parametrize("hangs", [False, True], ids=["file", "collector-hangs"])
def test_lost(daemon: Daemon, storm: Storm, tmp_path: Path, collector: Collector, hangs: bool) -> None:
    """Events that found no room in the ring buffers have one lost record, whose count is the programs' own."""
    other, root = collector if hangs else None, killing_itself(tmp_path, "events", "briefs")
    daemon.start("--no-backfill", root=root)
    daemon.stop()
    counted: list[int] = []

    def is_recorded(count: int) -> bool:
        if len(counted) < count:
            counted.append(events_lost(daemon))
        return len(daemon.of_type("lost")) >= count

    rounds = at_each_step(
        daemon,
        root,
        lambda: storm.end(storm.brew(BURST, jobs=1)),
        is_recorded,
        "--no-backfill",
        collector=other,
        stride=7,
        has_more_steps=True,  # a write for each kill
    )
    for losses in of_type("lost", daemon, other):
        assert len(set(ids(losses))) == len(losses) == rounds
        assert {loss["stage"] for loss in losses} == {"ring_buffer"}
        totals = [sum(loss["count"] for loss in losses[: number + 1]) for number in range(rounds)]
        assert totals == counted
    # Not in the documentation's table: these kills lose their records on purpose.
    Tally.of("SIGKILL at each step of recording lost events", rounds, storm.kills(), daemon.records()).check_accounted()
