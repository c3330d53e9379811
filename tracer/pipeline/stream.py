# SPDX-License-Identifier: Apache-2.0
"""The stream of records: numbered, encoded, handed to every output; and what was lost is told in it."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence

from tracer.base.clock import format_rfc3339
from tracer.base.errors import TracerError
from tracer.capture.ringbuf_retention import Backlog, Place
from tracer.delivery.output import Output
from tracer.delivery.outputs import CLOSE_S
from tracer.encoding import encoder
from tracer.encoding.styles import STYLES
from tracer.records.model import SCHEMA, Base, Host, Lost, Record, Stop

FULL_TOLD_S = 60.0
"""How often it is told what an output drops that stays full: each time is one more line that waits for it."""


class Stream:
    """Records in, lines out; ``backlogs`` are told which lines were taken."""

    def __init__(self, outputs: Sequence[Output], host: Host, max_bytes: int, backlogs: Sequence[Backlog]) -> None:
        self.observe: Callable[[Record], None] = lambda record: None
        """Sees every record that is written."""
        self._outputs = list(outputs)
        self._host = host
        self._max_bytes = max_bytes
        self._backlogs = backlogs
        self._seq = 0
        self._lines = 0
        self._lost: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._names: dict[str, tuple[str | None, bool]] = {}
        """Ids of the records that will tell what was lost last, and whether an earlier run may have written them."""
        self._afterwards: deque[tuple[int, Callable[[], None]]] = deque()
        """What is to be done once so many lines are taken."""
        self._accounts: defaultdict[Output, Counter[str]] = defaultdict(Counter)
        """What of each output's own counts is in ``_lost``."""
        self._settled = 0
        """How many lines all outputs were done with when that was last asked."""
        self._holds: dict[Output, tuple[int, int]] = {}
        """Outputs that drop lines: how many each was done with before, and how many once its `lost` record is taken."""
        self._full_told_s = 0.0
        self.whole_until_ns = time.time_ns()
        """Until then nothing was lost, or it was told."""

    @property
    def lost(self) -> int:
        """What was lost so far."""
        return self._lost.total()

    def base(self) -> Base:
        """What every record has; the number is given when it is written."""
        return {"schema": SCHEMA, "time": format_rfc3339(time.time_ns()), "seq": 0, "host": self._host}

    def write(self, record: Record, places: Sequence[Place] = (), *, is_again: bool = False) -> bool:
        """Hand a record to all outputs; it tells what was read in the ring buffers from these places on.

        ``is_again``: it tells of a loss that an earlier run may have told.  False: one had written it, to all of them.
        """
        missing = wanting = [each for each in self._outputs if each.types is None or record["type"] in each.types]
        own_id = record.get("id")
        is_old = not places or any(place.is_old for place in places)
        if isinstance(own_id, str) and (is_again if record["type"] in ("lost", "gap") else is_old):
            missing = [output for output in wanting if not output.has_record(record["type"], own_id)]
        if wanting and not missing:
            return False
        record["seq"], record["host"] = self._seq, self._host
        self._seq += 1
        encoded: dict[str, bytes] = {}
        for output in self._outputs:
            if output not in missing:
                output.skip()
                continue
            if output.style not in encoded:
                encoded[output.style] = encoder.encode(record, self._max_bytes, STYLES[output.style])
            output.put(encoded[output.style], spare=record["type"] in ("lost", "stop"))
        for place in places:
            place.backlog.written(self._lines, place.position)
        self._lines += 1
        self.observe(record)
        return True

    def stop(self, oom_kills: int | None, records: int, filtered: int, metadata_errors: int) -> None:
        """Write the last record: the kernel's count beside ours, and what went wrong."""
        self._tell_losses(all_of_them=True)
        stop: Stop = {**self.base(), "type": "stop", "oom_kills": oom_kills, "records": records,
                      "filtered": filtered, "lost": self.lost, "metadata_errors": metadata_errors}  # fmt: skip
        self.write(stop)

    def lose(self, stage: str, count: int = 1, name: str | None = None, *, is_again: bool = False) -> None:
        """So many events or records were lost there; ``name`` is the id of what tells of them alone."""
        is_alone = self._lost[stage] == self._told[stage]
        self._names[stage] = (name, is_again) if is_alone else (None, False)
        self._lost[stage] += count

    def losses(self, stage: str) -> int:
        """How many were lost there so far."""
        return self._lost[stage]

    def once_taken(self, action: Callable[[], None]) -> None:
        """Call this once the outputs have taken all that was written so far: no SIGKILL can lose that any more."""
        self._afterwards.append((self._lines, action))

    def waits(self) -> bool:
        """Whether there is something to be done once the outputs have taken what they were given."""
        return bool(self._afterwards)

    def settle(self) -> None:
        """Learn what the outputs have taken; tell what was lost since the last time.

        Raises TracerError where no output is left.
        """
        self._tell_losses()
        self.release()

    def release(self) -> None:
        """Learn what the outputs have taken.

        Raises TracerError where no output is left.
        """
        self._part_with([output for output in self._outputs if output.dead])
        if not self._outputs:
            raise TracerError("no output is left", "start it again with one that stays")
        settled = self._settled = min(map(self._done, self._outputs))
        for backlog in self._backlogs:
            backlog.settled(settled)
        while self._afterwards and self._afterwards[0][0] <= settled:
            self._afterwards.popleft()[1]()

    def _done(self, output: Output) -> int:
        """How many lines it is done with; with those that it has dropped once it has taken the record of that loss."""
        settled = output.acknowledged
        if output.dropped > self._accounts[output]["output"]:  # which is yet to be written
            self._hold(output, self._lines + 1)
        before, until = self._holds.get(output, (settled, 0))
        if settled < until:
            return before
        self._holds.pop(output, None)
        return settled

    def _hold(self, output: Output, until: int) -> None:
        before, _ = self._holds.get(output, (self._settled, 0))
        self._holds[output] = before, until

    def _tell_losses(self, *, all_of_them: bool = False) -> None:
        now_s, now_ns = time.monotonic(), time.time_ns()
        is_time = all_of_them or now_s - self._full_told_s >= FULL_TOLD_S
        held_back = False
        before = {output: self._accounts[output]["output"] for output in self._outputs}
        for output in self._outputs:
            is_dropping = output.is_full and output.dropped > self._accounts[output]["output"]
            self._count(output, dropped=is_time or not is_dropping)
            if is_dropping and is_time:
                self._full_told_s = now_s
            held_back = held_back or (is_dropping and not is_time)
        for stage in [stage for stage, count in self._lost.items() if count > self._told[stage]]:
            count, self._told[stage] = self._lost[stage] - self._told[stage], self._lost[stage]
            name, is_again = self._names.pop(stage, (None, False))
            lost: Lost = {**self.base(), "type": "lost", "id": name, "stage": stage, "count": count,
                          "since": format_rfc3339(self.whole_until_ns)}  # fmt: skip
            self.write(lost, is_again=is_again)
        for output, dropped in before.items():
            if self._accounts[output]["output"] > dropped:
                self._hold(output, self._lines)
        if not held_back:
            self.whole_until_ns = now_ns

    def _count(self, output: Output, *, dropped: bool) -> None:
        """Take over what an output has counted since the last time."""
        account = self._accounts[output]
        now = {"spool": output.damaged, "rejected": output.rejected}
        if dropped:
            now["output"] = output.dropped
        for kind, count in now.items():
            self._lost[f"{kind}:{output.uri}"] += count - account[kind]
            account[kind] = count

    def _part_with(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            self._count(output, dropped=True)
            del self._accounts[output]
            self._holds.pop(output, None)
            self._outputs.remove(output)

    def flush(self) -> None:
        """Wait until the outputs have taken what they were given, for CLOSE_S at most."""
        until_s = time.monotonic() + CLOSE_S
        while min(output.acknowledged for output in self._outputs) < self._lines and time.monotonic() < until_s:
            time.sleep(0.005)

    def exchange(self, outputs: Sequence[Output]) -> None:
        """Go on with these; what those that are gone had not delivered they have kept or told."""
        for output in outputs:
            if output not in self._outputs:
                output.start_at(self._lines)
        self._part_with([output for output in self._outputs if output not in outputs])
        self._outputs = list(outputs)

    def configure(self, host: Host, max_bytes: int) -> None:
        """From now on."""
        self._host, self._max_bytes = host, max_bytes

    def reopen(self) -> None:
        """Go on in what has the names of the outputs now."""
        for output in self._outputs:
            output.reopen()

    def close(self) -> None:
        """Hand over what is left, or keep it for the next run."""
        for output in self._outputs:  # all at once: several may hang
            output.end(CLOSE_S)
        for output in self._outputs:
            output.close(CLOSE_S)
