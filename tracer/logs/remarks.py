# SPDX-License-Identifier: Apache-2.0
"""What a log has beside the kills that are read in it: lines that should have been read, and kills of other killers.

No log that is full of kills ends in silence.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tracer.base.printable import printable
from tracer.logs.oom_lines import NO_KILLABLE, OOM_PANIC, PANIC_WORD

LineAt = Callable[[int], int | None]
"""The number of the line in which a byte of the log is, None where that is not known."""

OTHER_WORDS = (b" due to memory ", b"ending SIG", b"viction manager: ", PANIC_WORD, NO_KILLABLE)
"""One of them is in each line of systemd-oomd, earlyoom, nohang and the kubelet about a kill, and in the kernel's that
it killed nobody.
"""

_MEANT = re.compile(
    rb"Killed process \d{1,10}[ ,].{0,200}(?:total-vm|vsz):\d"
    rb"|[Oo]ut of [Mm]emory[^:]{0,40}: (?:OOM k|[Kk])ill(?:ed)? process \d"
    rb"|invoked oom-killer: gfp_mask=0x[0-9a-f]"
)
_NAMED = re.compile(rb"(?:oom-kill:constraint=|Tasks? in /|Memory cgroup stats for |\[ *\d+\] )")
"""How lines of a report begin in which names stand that may look like others."""
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
    """Where a line of a log is."""

    offset: int
    line: int | None
    """Its number, where lines are counted."""


class Remark(NamedTuple):
    """A sentence for stderr."""

    text: str
    hint: str | None = None
    is_loss: bool = False
    """Whether something could not be read."""

    def text_with_hint(self) -> str:
        """In one line, harmless for a terminal."""
        return printable(self.text if self.hint is None else f"{self.text}: {self.hint}")


class Remarks:
    """Of one log."""

    def __init__(self) -> None:
        self.kills = 0
        """How many it gave."""
        self.unread = 0
        """Lines that hold the kernel's words for a kill and could not be read."""
        self.years = set[str]()
        """Those that were assumed for its kills."""
        self._first: LogPosition | None = None
        self._others = 0
        self._first_others: LogPosition | None = None
        self._unfinished = 0
        self._trigger = b""
        self._lines: list[tuple[LogPosition, str]] = []
        self._more_lines = 0
        self._is_memory = True
        """Whether it was memory that the kubelet wanted to reclaim."""
        self._passed_to = -1

    @property
    def are_of_a_log(self) -> bool:
        """Whether a line was the kernel's, in whatever form."""
        return self.unread > 0 or bool(self._lines)

    def pass_over(self, line: bytes, is_unknown: bool, place: Callable[[], LogPosition]) -> None:
        """A line of which no record is made: it is in no known format, or not the kernel's."""
        if _MEANT.search(line) is not None:
            where = place()
            if 0 <= where.offset <= self._passed_to:
                return
            self._passed_to = where.offset
            if is_unknown:
                self._count(where)
            else:
                self._others += 1
                self._first_others = self._first_others or where
        elif is_unknown and (panicked := OOM_PANIC.search(line)) is not None:
            self.panic(panicked[0], place)
        elif (killed := self._killed(line)) is not None:
            where = place()
            if 0 <= where.offset <= self._passed_to:
                return
            self._passed_to = where.offset
            self._add(where, killed)

    def refuse(self, text: bytes, place: Callable[[], LogPosition]) -> None:
        """A line of the kernel's of which nothing could be made."""
        if _MEANT.search(text) is not None and _NAMED.match(text) is None:
            self._count(place())

    def panic(self, text: bytes, place: Callable[[], LogPosition]) -> None:
        """A report that ended in a panic."""
        self._add(
            place(), f"the kernel panicked instead of killing: {_text(text.partition(b': ')[2][:_LONGEST_REASON])}"
        )

    def spare(self, text: bytes, place: Callable[[], LogPosition]) -> None:
        """A report of a kernel that found nobody to kill."""
        self._add(place(), f"the kernel killed nobody: {_text(text[:_LONGEST_REASON])}")

    def leave_unfinished(self, trigger: bytes | None) -> None:
        """A report that does not say who was killed."""
        self._unfinished += 1
        self._trigger = self._trigger or trigger or b""

    def _add(self, place: LogPosition, text: str) -> None:
        if len(self._lines) < _MOST_LINES:
            self._lines.append((place, text))
        else:
            self._more_lines += 1

    def _count(self, place: LogPosition) -> None:
        self.unread += 1
        self._first = self._first or place

    def _killed(self, line: bytes) -> str | None:
        if (match := _OOMD.search(line)) is not None and b"systemd-oomd" in line:
            why = "memory pressure" if match[2] == b"pressure" else "the use of memory and swap"
            return f"systemd-oomd, not the kernel, killed {_text(match[1])}, because of {why}"
        if (match := _EARLYOOM.search(line)) is not None and b"earlyoom" in line:
            return f"earlyoom, not the kernel, sent {_text(match[1])} to {_text(match[3])} (pid {_text(match[2])})"
        if (match := _NOHANG.search(line)) is not None:
            return f"nohang, not the kernel, sent {_text(match[1])} to its victim"
        if (match := _RECLAIM.search(line)) is not None:
            self._is_memory = match[1].startswith(b"memory")
        elif (match := _EVICTED.search(line)) is not None and (match[1] or match[2]) and self._is_memory:
            return f"the kubelet, not the kernel, evicted the pod {_text(match[2] or match[1])}"
        return None

    def sentences(self, name: str, line_at: LineAt) -> Iterator[Remark]:
        """All that is to be said of a log that is called so."""

        def number(place: LogPosition | None) -> int | None:
            return None if place is None else place.line if place.line is not None else line_at(place.offset)

        def first(place: LogPosition | None) -> str:
            line = number(place)
            return "" if line is None else f"; the first is line {line}"

        if self.unread:
            hold = "1 line holds" if self.unread == 1 else f"{self.unread} lines hold"
            yield Remark(
                f"{name}: {hold} the kernel's words for OOM kills but could not be read{first(self._first)}",
                "give the output of dmesg or journalctl (as text or -o json, not json-pretty), or the kernel's lines "
                "without those of others",
                is_loss=True,
            )
        elif self._others and not self.kills and not self._unfinished:
            hold = "1 line" if self._others == 1 else f"{self._others} lines"
            yield Remark(
                f"{name}: only other programs than the kernel used its words for OOM kills, in {hold}"
                f"{first(self._first_others)}",
                "if they are copies of the kernel's lines, give those alone, without what stands in front of them",
            )
        if self._unfinished:
            have = "1 report of the OOM killer does" if self._unfinished == 1 else f"{self._unfinished} reports do"
            which = f" ({_text(self._trigger)} invoked the OOM killer)" if self._trigger else ""
            yield Remark(f"{name}: {have} not say who was killed{which}", "give the log from the report on, uncut")
        for place, text in self._lines:
            line = number(place)
            yield Remark(f"{name}: {text}" if line is None else f"{name}: line {line}: {text}")
        if self._more_lines:
            yield Remark(f"{name}: {self._more_lines} more such lines")


class AllRemarks:
    """Of all logs that are read."""

    def __init__(self) -> None:
        self._logs: list[tuple[str, Remarks, LineAt]] = []

    def begin(self, name: str, remarks: Remarks, line_at: LineAt) -> None:
        """A log is read, and what it has is to be remarked."""
        self._logs.append((name, remarks, line_at))

    def add_kill(self, time: str | None, is_year_assumed: bool) -> None:
        """The log that is read gave one."""
        if self._logs:
            remarks = self._logs[-1][1]
            remarks.kills += 1
            if time is not None and is_year_assumed:
                remarks.years.add(time[:4])

    def sentences(self) -> Iterator[Remark]:
        """When all are read."""
        for name, remarks, line_at in self._logs:
            yield from remarks.sentences(name, line_at)
        years = sorted({year for _, remarks, _ in self._logs for year in remarks.years})
        if years:
            yield Remark(f"no year in the log; assuming {' and '.join(years)} from when it was last written")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
