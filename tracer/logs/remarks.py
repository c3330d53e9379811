# SPDX-License-Identifier: Apache-2.0
"""What a log contains beside OOM kills: lines that could not be parsed, and kills by other killers.

A log that is full of kills is never read in silence.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tracer.base.printable import printable
from tracer.logs.oom_lines import NO_KILLABLE, OOM_PANIC, PANIC_WORD

LineNumberAt = Callable[[int], int | None]
"""The line number of a byte's offset in the log; None: unknown."""

OTHER_KILLERS_WORDS = (b" due to memory ", b"ending SIG", b"viction manager: ", PANIC_WORD, NO_KILLABLE)
"""One of these is in each line of systemd-oomd, earlyoom, nohang and the kubelet about a kill, and in the kernel's
lines that no process was killed."""

_KERNELS_WORDS = re.compile(
    rb"Killed process \d{1,10}[ ,].{0,200}(?:total-vm|vsz):\d"
    rb"|[Oo]ut of [Mm]emory[^:]{0,40}: (?:OOM k|[Kk])ill(?:ed)? process \d"
    rb"|invoked oom-killer: gfp_mask=0x[0-9a-f]"
)
_LINE_WITH_NAMES = re.compile(rb"(?:oom-kill:constraint=|Tasks? in /|Memory cgroup stats for |\[ *\d+\] )")
"""The begins of lines of a report that contain names, which may look like other lines."""
_OOMD = re.compile(rb"Killed (/[^\s\"]{1,4096}) due to memory (pressure|used)")
_EARLYOOM = re.compile(rb"sending (SIG[A-Z]{3,5}) to process (\d{1,10})(?: uid \d{1,10})? \\?\"([^\"\\]{0,64})")
_NOHANG = re.compile(rb"Sending (SIG[A-Z]{3,5}) to (?:the )?[Vv]ictim")
_EVICTED = re.compile(
    rb"viction manager: pod (?:(\S{1,512}) )?(?:is )?evicted(?: successfully)?(?:\\?\" pod=\\?\"([^\"\\]{1,512}))?"
)
_RECLAIM = re.compile(
    rb"viction manager: (?:must evict|attempting to reclaim)\b.{0,200}?\b(memory|\w{0,9}fs|\w{0,9}Fs|inodes|pids?)\b"
)
_MOST_LINES = 10
_LONGEST_REASON = 100


class LogPosition(NamedTuple):
    """The position of a line in a log."""

    offset: int
    line: int | None
    """Its number, if lines are counted."""


class Remark(NamedTuple):
    """A message for stderr."""

    text: str
    hint: str | None = None
    is_loss: bool = False
    """Whether a part of the log could not be parsed."""

    def text_with_hint(self) -> str:
        """On one line, without control characters."""
        return printable(self.text if self.hint is None else f"{self.text}: {self.hint}")


class Remarks:
    """The remarks about one log."""

    def __init__(self) -> None:
        self.kill_count = 0
        """The number of kills in the log."""
        self.unparsed = 0
        """The number of lines with the kernel's words for a kill that could not be parsed."""
        self.assumed_years = set[str]()
        """The years that were assumed for its kills."""
        self._first_unparsed: LogPosition | None = None
        self._foreign = 0
        self._first_foreign: LogPosition | None = None
        self._unfinished = 0
        self._trigger_comm = b""
        self._lines: list[tuple[LogPosition, str]] = []
        self._more_lines = 0
        self._reclaims_memory = True
        """Whether the kubelet's last message was about reclaiming memory."""
        self._last_offset = -1

    @property
    def has_kernel_lines(self) -> bool:
        """Whether a line was from the kernel, in any format."""
        return self.unparsed > 0 or bool(self._lines)

    def add_unread_line(self, line: bytes, is_unknown: bool, position: Callable[[], LogPosition]) -> None:
        """Add a line without a record: in no known format, or not from the kernel."""
        if _KERNELS_WORDS.search(line) is not None:
            at = position()
            if 0 <= at.offset <= self._last_offset:
                return
            self._last_offset = at.offset
            if is_unknown:
                self._count_unparsed(at)
            else:
                self._foreign += 1
                self._first_foreign = self._first_foreign or at
        elif is_unknown and (panicked := OOM_PANIC.search(line)) is not None:
            self.add_panic(panicked[0], position)
        elif (killed := self._describe_other_kill(line)) is not None:
            at = position()
            if 0 <= at.offset <= self._last_offset:
                return
            self._last_offset = at.offset
            self._add(at, killed)

    def add_unparsed(self, text: bytes, position: Callable[[], LogPosition]) -> None:
        """Add a line from the kernel that could not be parsed."""
        if _KERNELS_WORDS.search(text) is not None and _LINE_WITH_NAMES.match(text) is None:
            self._count_unparsed(position())

    def add_panic(self, text: bytes, position: Callable[[], LogPosition]) -> None:
        """Add a report that ended in a panic."""
        self._add(
            position(), f"the kernel panicked instead of killing: {_text(text.partition(b': ')[2][:_LONGEST_REASON])}"
        )

    def add_no_killable(self, text: bytes, position: Callable[[], LogPosition]) -> None:
        """Add a report of a kernel that found no process to kill."""
        self._add(position(), f"the kernel found no process to kill: {_text(text[:_LONGEST_REASON])}")

    def add_unfinished(self, trigger_comm: bytes | None) -> None:
        """Add a report that does not name its victim."""
        self._unfinished += 1
        self._trigger_comm = self._trigger_comm or trigger_comm or b""

    def _add(self, place: LogPosition, text: str) -> None:
        if len(self._lines) < _MOST_LINES:
            self._lines.append((place, text))
        else:
            self._more_lines += 1

    def _count_unparsed(self, place: LogPosition) -> None:
        self.unparsed += 1
        self._first_unparsed = self._first_unparsed or place

    def _describe_other_kill(self, line: bytes) -> str | None:
        if (match := _OOMD.search(line)) is not None and b"systemd-oomd" in line:
            why = "memory pressure" if match[2] == b"pressure" else "the use of memory and swap"
            return f"systemd-oomd, not the kernel, killed {_text(match[1])}, because of {why}"
        if (match := _EARLYOOM.search(line)) is not None and b"earlyoom" in line:
            return f"earlyoom, not the kernel, sent {_text(match[1])} to {_text(match[3])} (pid {_text(match[2])})"
        if (match := _NOHANG.search(line)) is not None:
            return f"nohang, not the kernel, sent {_text(match[1])} to its victim"
        if (match := _RECLAIM.search(line)) is not None:
            self._reclaims_memory = match[1].startswith(b"memory")
        elif (match := _EVICTED.search(line)) is not None and (match[1] or match[2]) and self._reclaims_memory:
            return f"the kubelet, not the kernel, evicted the pod {_text(match[2] or match[1])}"
        return None

    def make_remarks(self, name: str, line_number_at: LineNumberAt) -> Iterator[Remark]:
        """The remarks about a log with this name."""

        def number(place: LogPosition | None) -> int | None:
            return None if place is None else place.line if place.line is not None else line_number_at(place.offset)

        def first(place: LogPosition | None) -> str:
            line = number(place)
            return "" if line is None else f"; the first is line {line}"

        if self.unparsed:
            hold = "1 line holds" if self.unparsed == 1 else f"{self.unparsed} lines hold"
            yield Remark(
                f"{name}: {hold} the kernel's words for OOM kills but could not be read{first(self._first_unparsed)}",
                "give the output of dmesg or journalctl (as text or -o json, not json-pretty), or the kernel's lines "
                "without those of others",
                is_loss=True,
            )
        elif self._foreign and not self.kill_count and not self._unfinished:
            hold = "1 line" if self._foreign == 1 else f"{self._foreign} lines"
            yield Remark(
                f"{name}: only programs other than the kernel used its words for OOM kills, in {hold}"
                f"{first(self._first_foreign)}",
                "if they are copies of the kernel's lines, give only those, without the prefix",
            )
        if self._unfinished:
            have = "1 report of the OOM killer does" if self._unfinished == 1 else f"{self._unfinished} reports do"
            which = f" ({_text(self._trigger_comm)} invoked the OOM killer)" if self._trigger_comm else ""
            yield Remark(f"{name}: {have} not say who was killed{which}", "give the complete log from the report on")
        for place, text in self._lines:
            line = number(place)
            yield Remark(f"{name}: {text}" if line is None else f"{name}: line {line}: {text}")
        if self._more_lines:
            yield Remark(f"{name}: {self._more_lines} more such lines")


class AllRemarks:
    """The remarks about all logs that are read."""

    def __init__(self) -> None:
        self._logs: list[tuple[str, Remarks, LineNumberAt]] = []

    def add_log(self, name: str, remarks: Remarks, line_number_at: LineNumberAt) -> None:
        """Add the log that is read next."""
        self._logs.append((name, remarks, line_number_at))

    def add_kill(self, time: str | None, is_year_assumed: bool) -> None:
        """Count a kill of the last log."""
        if self._logs:
            remarks = self._logs[-1][1]
            remarks.kill_count += 1
            if time is not None and is_year_assumed:
                remarks.assumed_years.add(time[:4])

    def make_remarks(self) -> Iterator[Remark]:
        """The remarks, once all logs are read."""
        for name, remarks, line_number_at in self._logs:
            yield from remarks.make_remarks(name, line_number_at)
        years = sorted({year for _, remarks, _ in self._logs for year in remarks.assumed_years})
        if years:
            yield Remark(f"no year in the log; assuming {' and '.join(years)} from when it was last written")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
