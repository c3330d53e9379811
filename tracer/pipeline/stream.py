# SPDX-License-Identifier: Apache-2.0
"""The stream: numbers and encodes records, hands them to every output, and reports what was lost."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, cast

from tracer.base.clock import format_rfc3339
from tracer.base.errors import TracerError
from tracer.capture.ringbuf_retention import Token, release_all
from tracer.delivery.output import Output
from tracer.delivery.outputs import CLOSE_S
from tracer.encoding import encoder
from tracer.encoding.styles import STYLES
from tracer.records.model import SCHEMA, Base, Host, Lost, Record, Stop

FULL_REPORT_S = 60.0
"""How often the dropped lines of an output that stays full are reported: each report is one more line for it."""


class _Pending(NamedTuple):
    """Losses of a stage that the next `lost` record reports."""

    record_id: str | None
    may_be_reported: bool
    """An earlier run may have written it."""
    once_acknowledged: tuple[Callable[[], None], ...]


class Stream:
    """Records in, lines out; line numbers are counted from 1, the same for all outputs."""

    def __init__(
        self,
        outputs: Sequence[Output],
        host: Host,
        max_bytes: int,
        lossless_until_ns: int | None = None,
        observe: Callable[[Record], None] = lambda record: None,
    ) -> None:
        """``lossless_until_ns``: until then (CLOCK_REALTIME) nothing was lost, or it was reported; None: until now.

        ``observe`` gets every record that is written.
        """
        self._observe = observe
        self._outputs = list(outputs)
        self._host = host
        self._max_bytes = max_bytes
        self._seq = 0
        self._lines = 0
        self._lost: Counter[str] = Counter()
        self._reported: Counter[str] = Counter()
        self._pending: dict[str, _Pending] = {}
        self._actions: deque[tuple[int, Callable[[], None]]] = deque()
        """Numbers of lines, and what to call once so many are acknowledged."""
        self._accounts: defaultdict[Output, Counter[str]] = defaultdict(Counter)
        """The part of each output's own counts that is in ``_lost``."""
        self.acknowledged = 0
        """How many lines, from the first one on, all outputs had acknowledged when they were last asked."""
        self._holds: dict[Output, tuple[int, int]] = {}
        """Outputs that drop lines: the lines acknowledged before, and those acknowledged with the `lost` record."""
        self._full_reported_s = 0.0
        self._lossless_until_ns = time.time_ns() if lossless_until_ns is None else lossless_until_ns

    @property
    def lost(self) -> int:
        """Number of events and records lost so far."""
        return self._lost.total()

    def base_fields(self) -> Base:
        """The fields of every record; ``write`` gives it its number."""
        return {"schema": SCHEMA, "time": format_rfc3339(time.time_ns()), "seq": 0, "host": self._host}

    def write(self, record: Record, tokens: Iterable[Token] = (), *, may_be_written: bool = False) -> bool:
        """Hand a record to all outputs, and its tokens over: they are released once the outputs acknowledge it.

        ``may_be_written``: an earlier run may have written it.  False: one had, to all outputs of such records.
        If it raises, the tokens are still the caller's.
        """
        missing = accepting = [each for each in self._outputs if each.types is None or record["type"] in each.types]
        record_id = record.get("id")
        if may_be_written and isinstance(record_id, str):
            missing = [output for output in accepting if not output.has_record(record["type"], record_id)]
        if accepting and not missing:
            release_all(tokens)
            return False
        record = cast(Record, {**record, "seq": self._seq, "host": self._host})
        # All styles before the first output gets its line: the outputs' counts of lines stay equal if one fails.
        encoded = {
            style: encoder.encode(record, self._max_bytes, STYLES[style])
            for style in dict.fromkeys(output.style for output in missing)
        }
        self._seq += 1
        self._lines += 1
        for output in self._outputs:
            if output in missing:
                output.put(encoded[output.style], spare=record["type"] in ("lost", "stop"))
            else:
                output.skip()
        self._observe(record)
        for token in tokens:
            token.release_after(self._lines)
        return True

    def write_stop(self, oom_kills: int | None, records: int, filtered: int, metadata_errors: int) -> None:
        """Write the last record: the kernel's count, the number of records, and errors."""
        self._write_losses(all_of_them=True)
        stop: Stop = {**self.base_fields(), "type": "stop", "oom_kills": oom_kills, "records": records,
                      "filtered": filtered, "lost": self.lost, "metadata_errors": metadata_errors}  # fmt: skip
        self.write(stop)

    def add_loss(
        self,
        stage: str,
        count: int = 1,
        record_id: str | None = None,
        *,
        may_be_reported: bool = False,
        lossless_until_ns: int | None = None,
        once_acknowledged: Callable[[], None] | None = None,
    ) -> None:
        """Count events or records that were lost there; the next ``report_losses`` writes a `lost` record.

        ``record_id``: the record's, if it reports nothing else; ``may_be_reported``: an earlier run may have written
        that.  ``lossless_until_ns``: they were lost after that (CLOCK_REALTIME), if it is known.
        ``once_acknowledged`` is called once all outputs have acknowledged the record.
        """
        is_only = self._lost[stage] == self._reported[stage]
        earlier = self._pending.get(stage)
        actions = (*(earlier.once_acknowledged if earlier else ()), *([once_acknowledged] if once_acknowledged else []))
        self._pending[stage] = _Pending(record_id if is_only else None, may_be_reported and is_only, actions)
        self._lost[stage] += count
        if lossless_until_ns is not None:
            self._lossless_until_ns = min(self._lossless_until_ns, lossless_until_ns)

    def lost_at(self, stage: str) -> int:
        """Number of events and records lost at this stage so far."""
        return self._lost[stage]

    def once_acknowledged(self, action: Callable[[], None]) -> None:
        """Call this once all outputs have acknowledged what was written so far: a SIGKILL cannot lose it any more."""
        self._actions.append((self._lines, action))

    def has_actions(self) -> bool:
        """Whether a call of ``once_acknowledged`` is pending."""
        return bool(self._actions)

    def report_losses(self) -> None:
        """Write `lost` records for losses since the last call, and poll the outputs.

        Raises TracerError if no output is left.
        """
        self._write_losses()
        self.poll_outputs()

    def poll_outputs(self) -> None:
        """Update ``acknowledged``, and call what waited for it.

        Raises TracerError if no output is left.
        """
        self._remove_outputs([output for output in self._outputs if output.dead])
        if not self._outputs:
            raise TracerError(
                "all outputs have ended", "restart oomtrace with an output that can be reopened, such as a file"
            )
        self.acknowledged = min(map(self._acknowledged_by, self._outputs))
        while self._actions and self._actions[0][0] <= self.acknowledged:
            self._actions.popleft()[1]()

    def _acknowledged_by(self, output: Output) -> int:
        """Lines that an output has acknowledged; dropped ones count once their `lost` record is acknowledged."""
        acknowledged = output.acknowledged
        if output.dropped > self._accounts[output]["output"]:  # whose `lost` record is yet to be written
            self._hold(output, self._lines + 1)
        before, until = self._holds.get(output, (acknowledged, 0))
        if acknowledged < until:
            return before
        self._holds.pop(output, None)
        return acknowledged

    def _hold(self, output: Output, until: int) -> None:
        before, _ = self._holds.get(output, (self.acknowledged, 0))
        self._holds[output] = before, until

    def _write_losses(self, *, all_of_them: bool = False) -> None:
        now_s, now_ns = time.monotonic(), time.time_ns()
        is_time = all_of_them or now_s - self._full_reported_s >= FULL_REPORT_S
        held_back = False
        before = {output: self._accounts[output]["output"] for output in self._outputs}
        for output in self._outputs:
            is_dropping = output.is_full and output.dropped > self._accounts[output]["output"]
            self._count(output, dropped=is_time or not is_dropping)
            if is_dropping and is_time:
                self._full_reported_s = now_s
            held_back = held_back or (is_dropping and not is_time)
        for stage in [stage for stage, count in self._lost.items() if count > self._reported[stage]]:
            count, self._reported[stage] = self._lost[stage] - self._reported[stage], self._lost[stage]
            pending = self._pending.pop(stage, _Pending(None, False, ()))
            lost: Lost = {**self.base_fields(), "type": "lost", "id": pending.record_id, "stage": stage, "count": count,
                          "since": format_rfc3339(self._lossless_until_ns)}  # fmt: skip
            self.write(lost, may_be_written=pending.may_be_reported)
            for action in pending.once_acknowledged:
                self.once_acknowledged(action)
        for output, dropped in before.items():
            if self._accounts[output]["output"] > dropped:
                self._hold(output, self._lines)
        if not held_back:
            self._lossless_until_ns = now_ns

    def _count(self, output: Output, *, dropped: bool) -> None:
        """Add an output's own counts since the last call to ``_lost``."""
        account = self._accounts[output]
        now = {"spool": output.damaged, "rejected": output.rejected}
        if dropped:
            now["output"] = output.dropped
        for kind, count in now.items():
            self._lost[f"{kind}:{output.uri}"] += count - account[kind]
            account[kind] = count

    def _remove_outputs(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            self._count(output, dropped=True)
            del self._accounts[output]
            self._holds.pop(output, None)
            self._outputs.remove(output)

    def wait_for_outputs(self) -> None:
        """Wait until the outputs have acknowledged all lines, CLOSE_S at most."""
        until_s = time.monotonic() + CLOSE_S
        while min(output.acknowledged for output in self._outputs) < self._lines and time.monotonic() < until_s:
            time.sleep(0.005)

    def replace_outputs(self, outputs: Sequence[Output]) -> None:
        """Continue with these outputs.  The removed ones have spooled or counted what they had not delivered."""
        for output in outputs:
            if output not in self._outputs:
                output.start_at(self._lines)
        self._remove_outputs([output for output in self._outputs if output not in outputs])
        self._outputs = list(outputs)

    def configure(self, host: Host, max_bytes: int) -> None:
        """Use this host and this size from now on."""
        self._host, self._max_bytes = host, max_bytes

    def reopen(self) -> None:
        """Reopen the outputs by name."""
        for output in self._outputs:
            output.reopen()

    def close(self) -> None:
        """Deliver the remaining lines, or spool them for the next run."""
        for output in self._outputs:  # all at once, as several may hang
            output.end(CLOSE_S)
        for output in self._outputs:
            output.close(CLOSE_S)
