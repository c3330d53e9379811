# SPDX-License-Identifier: Apache-2.0
"""Files in, the report out."""

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
"""Incidents in a ticket, unless told otherwise."""


class ReportOptions(NamedTuple):
    """What is made."""

    format: str = "html"
    output: str = STDOUT
    last: int | None = None
    since: str | None = None
    until: str | None = None
    names: OwnerFilter = OwnerFilter()
    """Whose kills."""


def write_report(files: Sequence[str], form: ReportOptions) -> int:
    """Write the report; gives the exit code.  What could not be read is said on stderr, a line for each file.

    Raises TracerError where no report can be written.
    """
    if form.output == STDOUT and sys.stdout is None:
        raise TracerError("there is no standard output", "run it with one, or give a file: -o PATH", EXIT_USAGE)
    if form.output == STDOUT and form.format == "html" and sys.stdout.isatty():
        raise TracerError("the page would go to the terminal", "give a file: -o report.html", EXIT_USAGE)
    collection = Collection()
    period = Period(form.since, form.until, Calendar())

    def is_wanted(kill: OomKill) -> bool:
        return period.has(kill["time"]) and form.names.matches(kill, kill["victim"]["cgroup"])

    inputs = ReportInputs(collection, is_wanted)
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
            print(f"oomtrace: {printable(read.name)}: {read.bad} lines are no records, and left out", file=sys.stderr)
    incidents = collection.incidents()
    notes = list(_notes(inputs.read_so_far, collection))
    if form.format == "md":
        text = render_markdown(incidents, workloads(incidents), form.last or SECTIONS, notes)
    else:
        text = render_page(incidents[-(form.last or 0) :], notes)
    _write(form.output, text.encode("utf-8", "backslashreplace"))
    return code


def _notes(inputs: Sequence[InputFile], collection: Collection) -> list[str]:
    """What a reader must know of what is not in the report."""
    notes = []
    bad = sum(read.bad for read in inputs)
    if bad:
        notes.append(f"Lines that are no records, and left out: {bad}")
    if collection.missing:
        notes.append(f"Kills and events that have no record (lost, gap): {collection.missing}")
    if collection.repeated:
        notes.append(f"Kills that were in more than one file, and count once: {collection.repeated}")
    return notes


def _write(path: str, data: bytes) -> None:
    if path == STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:  # as the files of records: not for everybody
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o640)) as file:
            file.write(data)
    except OSError as error:
        raise TracerError(f"cannot write {path}", f"{error.strerror or error}") from error
