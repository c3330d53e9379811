# SPDX-License-Identifier: Apache-2.0
"""``oomtrace parse``: kernel logs in, the records of their OOM kills out."""

import re
import sys
from collections import deque
from fnmatch import fnmatchcase
from typing import NamedTuple

from tracer import kmsg, line
from tracer.clock import rfc3339
from tracer.enrich import name_cgroups
from tracer.errors import EXIT_FAILED, EXIT_USAGE, TracerError
from tracer.event import Host, OomKill
from tracer.log_files import PAUSE_S, STDIN, LogFile
from tracer.log_format import Origin
from tracer.log_record import LogRecords
from tracer.log_scan import LogScan
from tracer.log_time import Calendar, read_zone
from tracer.oom_incident import Report
from tracer.sentence import describe, printable
from tracer.this_boot import ThisBoot


class Wanted(NamedTuple):
    """Which kills; None: all."""

    since: str | None = None
    until: str | None = None
    container: str | None = None
    unit: str | None = None
    grep: str | None = None
    boot: str | None = None


class Form(NamedTuple):
    """How the logs are read, and what is printed."""

    last: int | None = None
    boot_time: str | None = None
    timezone: str | None = None
    sentence: bool = False
    follow: bool = False


def parse(files: list[str], wanted: Wanted, form: Form) -> int:
    """Print the kills in the logs; gives the exit code.  Of files that cannot be read one line each is said on stderr.

    Raises TracerError for wrong options, OSError where the output cannot be written.
    """
    run = _Run(wanted, form)
    if not files:
        files = [kmsg.PATH if sys.stdin is None or sys.stdin.isatty() else STDIN]
    if form.follow and len(files) > 1:
        raise TracerError("--follow takes one file", "start one oomtrace for each", EXIT_USAGE)
    code = 0
    try:
        for path in files:
            try:
                run.read(path)
            except TracerError as error:
                print(f"oomtrace: {error}", file=sys.stderr)
                code = EXIT_FAILED
    except KeyboardInterrupt:
        code = 0 if form.follow else 130
    run.finish()
    return code


class _Run:
    def __init__(self, wanted: Wanted, form: Form) -> None:
        if sys.stdout is None:
            raise TracerError("there is no standard output", "run it with one")
        self._form = form
        self._zone = None if form.timezone is None else read_zone(form.timezone)
        calendar = Calendar(self._zone)
        self._boot_ns = None if form.boot_time is None else calendar.moment(form.boot_time)
        self._filter = _Filter(wanted, calendar)
        self._records: dict[Origin, LogRecords] = {}
        self._this_boot: ThisBoot | None = None
        self._last: deque[OomKill] | None = None if form.last is None else deque(maxlen=form.last)
        self._seq = 0
        self._undated = 0

    def read(self, path: str) -> None:
        """Print what a log reports.

        Raises TracerError where it cannot be read.
        """
        if path == kmsg.PATH:
            this_boot = self._boot()
            for report in this_boot.reports(PAUSE_S if self._form.follow else None):
                self._put(this_boot.records.oom_kill(report), this_boot.host)
            return
        file = LogFile(path)
        scan = LogScan(Calendar(self._zone, file.written_ns), self._found)
        is_empty = True
        try:
            for block in file.follow() if self._form.follow else file.blocks():
                is_empty = False
                if block:
                    scan.feed(block)
                else:
                    scan.pause()
                    self._release()
        finally:
            scan.end()
            file.close()
        if not is_empty and not scan.recognized:
            raise TracerError(
                f"{file.name} is no kernel log", "give the output of dmesg or journalctl, or a file of syslog"
            )

    def finish(self) -> None:
        """Print what was held back."""
        self._release()
        sys.stdout.flush()
        if self._undated:
            print(
                f"oomtrace: {self._undated} kills have no date, as their log tells only the time since some boot: "
                "give --boot-time",
                file=sys.stderr,
            )

    def _boot(self) -> ThisBoot:
        if self._this_boot is None:
            self._this_boot = ThisBoot()
        return self._this_boot

    def _found(self, report: Report, origin: Origin) -> None:
        host: Host = {"name": origin.host, "boot_id": origin.boot_id, "kernel": None, "labels": None}
        records = self._records.get(origin)
        if records is None:
            self._records.clear()
            records = self._records[origin] = LogRecords((origin.boot_id or "0").split("-")[0], None, None)
        if report.wall_ns is None:
            if self._boot_ns is not None:
                report = report._replace(wall_ns=self._boot_ns + (report.time_ns or 0))
            elif self._boot().has(report):
                host, records = self._boot().host, self._boot().dated
            else:
                self._undated += 1
        self._put(records.oom_kill(report), host)

    def _put(self, record: OomKill, host: Host) -> None:
        record["host"] = host
        name_cgroups(record)
        if not self._filter.takes(record):
            return
        if self._last is None:
            self._print(record)
        else:
            self._last.append(record)

    def _release(self) -> None:
        held, self._last = self._last, None
        for record in held or ():
            self._print(record)

    def _print(self, record: OomKill) -> None:
        record["seq"] = self._seq
        self._seq += 1
        if self._form.sentence:
            said = f"{record['time'] or 'at an unknown time'} {record['host']['name'] or ''}".rstrip()
            text = printable(f"{said}: {describe(record)}").encode("utf-8", "backslashreplace") + b"\n"
        else:
            text = line.encode(record)
        sys.stdout.buffer.write(text)
        if self._form.follow:
            sys.stdout.flush()


class _Filter:
    """Tells which records are wanted.

    Raises TracerError where what is wanted makes no sense.
    """

    def __init__(self, wanted: Wanted, calendar: Calendar) -> None:
        self._wanted = wanted
        self._since = None if wanted.since is None else rfc3339(calendar.moment(wanted.since))
        self._until = None if wanted.until is None else rfc3339(calendar.moment(wanted.until))
        self._unit = wanted.unit if wanted.unit is None or "." in wanted.unit else f"{wanted.unit}.service"
        self._boot = None
        if wanted.boot is not None:
            self._boot = wanted.boot.replace("-", "").lower()
            if re.fullmatch(r"[0-9a-f]{32}", self._boot) is None:
                hint = "give one as journalctl --list-boots shows it, or: journalctl -k -b -1 -o json | oomtrace parse"
                raise TracerError(f"no id of a boot: {wanted.boot!r}", hint, EXIT_USAGE)
        try:
            self._grep = None if wanted.grep is None else re.compile(wanted.grep.encode())
        except re.error as error:
            raise TracerError(f"no regular expression: {wanted.grep!r}", str(error), EXIT_USAGE) from error

    def takes(self, record: OomKill) -> bool:
        time, wanted = record["time"], self._wanted
        if self._since is not None and (time is None or time < self._since):
            return False
        if self._until is not None and (time is None or time > self._until):
            return False
        if self._boot is not None and (record["host"]["boot_id"] or "").replace("-", "") != self._boot:
            return False
        if wanted.container is not None and not _is_in(record, wanted.container):
            return False
        if self._unit is not None:
            unit = record["systemd"]["unit"] if record["systemd"] is not None else None
            if unit is None or not fnmatchcase(unit, self._unit):
                return False
        return self._grep is None or self._grep.search(line.encode(record)) is not None


def _is_in(record: OomKill, name: str) -> bool:
    container = record["container"]
    return container is not None and bool(name) and (container["id"].startswith(name) or container["name"] == name)
