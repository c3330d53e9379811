# SPDX-License-Identifier: Apache-2.0
"""Reads the input files and writes the report."""

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from tracer.base.errors import EXIT_FAILED, EXIT_USAGE, TracerError
from tracer.base.printable import printable
from tracer.logs.times import Calendar, Period
from tracer.records.matching import OwnerFilter
from tracer.records.model import OomKill
from tracer.report.incidents import Collection, workloads
from tracer.report.inputs import InputFile, ReportInputs
from tracer.report.markdown import render_markdown
from tracer.report.page import render_page

STDOUT = "-"
SECTIONS = 20
"""Default number of incidents in Markdown."""


class ReportOptions(NamedTuple):
    """Options of ``oomtrace report``."""

    format: str = "html"
    output: str = STDOUT
    last: int | None = None
    since: str | None = None
    until: str | None = None
    names: OwnerFilter = OwnerFilter()
    """Only kills of these owners."""


def write_report(files: Sequence[str], options: ReportOptions) -> int:
    """Write the report; returns the exit code.  Each file that cannot be read is reported on stderr.

    Raises TracerError if the report cannot be written.
    """
    if options.output == STDOUT and sys.stdout is None:
        raise TracerError("there is no standard output", "run it with one, or give a file: -o PATH", EXIT_USAGE)
    if options.output == STDOUT and options.format == "html" and sys.stdout.isatty():
        raise TracerError("the page would go to the terminal", "give a file: -o report.html", EXIT_USAGE)
    collection = Collection()
    period = Period(options.since, options.until, Calendar())

    def matches(kill: OomKill) -> bool:
        return period.contains(kill["time"]) and options.names.matches(kill, kill["victim"]["cgroup"])

    inputs = ReportInputs(collection, matches)
    code = 0
    for path in files:
        try:
            inputs.read(path)
        except TracerError as error:
            print(f"oomtrace: {error}", file=sys.stderr)
            code = EXIT_FAILED
    inputs.end()
    for remark in inputs.remarks():
        print(f"oomtrace: {remark.text_with_hint()}", file=sys.stderr)
        code = code or (EXIT_FAILED if remark.is_loss else 0)
    if not inputs.read_so_far:
        return code
    for read in inputs.read_so_far:
        if read.bad:
            print(
                f"oomtrace: {printable(read.name)}: {read.bad} lines are not records and were skipped", file=sys.stderr
            )
    incidents = collection.incidents()
    notes = list(_notes(inputs.read_so_far, collection))
    if options.format == "md":
        text = render_markdown(incidents, workloads(incidents), options.last or SECTIONS, notes)
    else:
        text = render_page(incidents[-(options.last or 0) :], notes)
    _write(options.output, text.encode("utf-8", "backslashreplace"))
    return code


def _notes(inputs: Sequence[InputFile], collection: Collection) -> list[str]:
    """Notes about data that is missing from the report."""
    notes = []
    bad = sum(read.bad for read in inputs)
    if bad:
        notes.append(f"Lines that are not records and were skipped: {bad}")
    if collection.missing:
        notes.append(f"Kills and events without a record (lost, gap): {collection.missing}")
    if collection.repeated:
        notes.append(f"Kills in more than one file, counted once: {collection.repeated}")
    return notes


def _write(path: str, data: bytes) -> None:
    if path == STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:  # not world-readable, like files of records
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o640)) as file:
            file.write(data)
    except OSError as error:
        raise TracerError(f"cannot write {path}", f"{error.strerror or error}") from error
