# SPDX-License-Identifier: Apache-2.0
"""``oomtrace parse``: kernel logs -> the records of their OOM kills."""

import os
import stat
import sys

from tracer.base.errors import EXIT_FAILED, EXIT_USAGE, TracerError
from tracer.base.printable import printable
from tracer.encoding import encoder
from tracer.logs import kmsg
from tracer.logs.kills import KillFilter, KillSearch, ReadOptions
from tracer.logs.log_file import STDIN
from tracer.records.conclusions import format_uptime, uptime_s
from tracer.records.model import OomKill
from tracer.records.summary import describe_kill


def parse(files: list[str], kill_filter: KillFilter, options: ReadOptions, sentence: bool = False) -> int:
    """Print the kills in the logs; gives the exit code. Errors and remarks go to stderr, one line each.

    Raises TracerError for invalid options, OSError if the output cannot be written.
    """
    search = KillSearch(kill_filter, options)
    if sys.stdout is None:
        raise TracerError("there is no standard output", "run it with one")
    if not files:
        files = [STDIN if _is_stdin_log() else kmsg.PATH]
    if options.follow and len(files) > 1:
        raise TracerError("--follow takes a single file", "run one oomtrace per file", EXIT_USAGE)
    printer = _Printer(sentence, options.follow)
    code = 0

    def unreadable(error: TracerError) -> None:
        nonlocal code
        sys.stdout.flush()
        print(f"oomtrace: {error}", file=sys.stderr)
        code = EXIT_FAILED

    try:
        for record in search.kills(files, unreadable):
            printer.print(record)
    except KeyboardInterrupt:
        for record in search.end():
            printer.print(record)
        code = 0 if options.follow else 130
    sys.stdout.flush()
    for remark in search.remarks():
        print(f"oomtrace: {remark.text_with_hint()}", file=sys.stderr)
        code = code or (EXIT_FAILED if remark.is_loss else 0)
    if search.undated:
        print(
            f"oomtrace: {_kills_have(search.undated)} no date, as the log has only the time since boot: "
            "give --boot-time",
            file=sys.stderr,
        )
    if search.unparsed_dates:
        print(
            f"oomtrace: {_kills_have(search.unparsed_dates)} no time, as the log has no date, or none that can be read "
            "(only English or numeric ones can): give the output of journalctl -o json, or of dmesg -T or journalctl "
            "with LC_ALL=C",
            file=sys.stderr,
        )
    return code


def _kills_have(count: int) -> str:
    return "1 kill has" if count == 1 else f"{count} kills have"


def _is_stdin_log() -> bool:
    """Whether standard input may be a log: not a terminal, nor the /dev/null of cron jobs and units."""
    try:
        return sys.stdin is not None and not stat.S_ISCHR(os.fstat(sys.stdin.fileno()).st_mode)
    except OSError:
        return False


class _Printer:
    def __init__(self, sentence: bool, at_once: bool) -> None:
        self._sentence, self._at_once = sentence, at_once
        self._seq = 0

    def print(self, record: OomKill) -> None:
        record["seq"] = self._seq
        self._seq += 1
        if self._sentence:
            uptime = uptime_s(record)
            when = record["time"] or ("at an unknown time" if uptime is None else format_uptime(uptime))
            said = f"{when} {record['host']['name'] or ''}".rstrip()
            print(printable(f"{said}: {describe_kill(record)}"))
        else:
            sys.stdout.buffer.write(encoder.encode(record))
        if self._at_once:
            sys.stdout.flush()
