# SPDX-License-Identifier: Apache-2.0
"""Incidents -> Markdown for a ticket.

Names are hostile: in a ticket they must not become a link, a picture, a mention of somebody, or the end of a table.  So
whatever a record says stands as code, where no tracker looks for any of this.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from tracer.base.printable import printable
from tracer.records.conclusions import format_trigger, format_uptime, trigger_role, uptime_s
from tracer.records.model import OomKill
from tracer.records.recurrence import Regularity
from tracer.records.summary import describe_kill
from tracer.report.incidents import ReportedIncident, ReportedKill, Workload
from tracer.report.memory import bound_bytes, memory_parts, size_text
from tracer.report.victim_names import victim_names

_MOST_WORKLOADS = 20
_MOST_VICTIMS = 10
_LONGEST = 500
"""Characters of one value."""
_MOST_LINES = 40
_UNKNOWN = "unknown"


def render_markdown(
    incidents: Sequence[ReportedIncident], workloads: Sequence[Workload], last: int, notes: Sequence[str]
) -> str:
    """A table of the workloads, and the ``last`` incidents, newest first.  ``notes`` are our own words."""
    victims = sum(len(incident.kills) for incident in incidents)
    lines = ["# OOM kills", "", f"{_count(len(incidents), 'incident')}, {_count(victims, 'victim')}."]
    lines += [f"{note}." for note in notes]
    if workloads:
        lines += ["", *_table(workloads)]
    shown = list(reversed(incidents[-last:]))
    for incident in shown:
        lines += ["", *_incident(incident)]
    if len(shown) < len(incidents):
        lines += ["", f"{len(incidents) - len(shown)} older incidents are not shown."]
    return "\n".join(lines) + "\n"


def _table(workloads: Sequence[Workload]) -> Iterator[str]:
    yield "| workload | node | incidents | victims | last | pattern |"
    yield "|---|---|---:|---:|---|---|"
    for workload in workloads[:_MOST_WORKLOADS]:
        last = workload.incidents[-1].kills[0].record["time"]
        cells = (
            _cell(workload.name),
            _cell(workload.node),
            str(len(workload.incidents)),
            str(workload.victims),
            _cell(last and f"{last[:19]}Z"),
            pattern_text(workload.regularity),
        )
        yield f"| {' | '.join(cells)} |"
    if len(workloads) > _MOST_WORKLOADS:
        yield ""
        yield f"{len(workloads) - _MOST_WORKLOADS} more workloads are not shown."


def pattern_text(found: Regularity) -> str:
    """What the intervals between kills say, in our own words alone."""
    if found.pattern == "too few":
        return f"too few to tell ({_count(found.incidents, 'dated incident')})"
    middle = span_text(found.median_s)
    if found.pattern == "saw-tooth":
        return f"saw-tooth: {found.near_median} of {found.incidents - 1} intervals near {middle}"
    if found.pattern == "burst":
        return f"bursts: {found.bursts}, the largest of {found.largest_burst} incidents"
    shortest, longest = span_text(found.shortest_s), span_text(found.longest_s)
    return f"irregular: {shortest} to {longest}, median {middle}"


def span_text(span_s: float | None) -> str:
    if span_s is None:
        return "?"
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if span_s >= 2 * size:
            return f"{span_s / size:.1f} {unit}"
    return f"{span_s:.1f} s"


def _incident(incident: ReportedIncident) -> Iterator[str]:
    first = incident.kills[0].record
    time, uptime = first["time"], uptime_s(first)
    when = "At an unknown time" if uptime is None else format_uptime(uptime)
    yield f"## {f'{time[:19]}Z' if time and incident.time_s is not None else when}"
    for kill in incident.kills[:_MOST_VICTIMS]:
        yield ""
        yield code(describe_kill(kill.record))
    if len(incident.kills) > _MOST_VICTIMS:
        yield ""
        yield f"{len(incident.kills) - _MOST_VICTIMS} more victims died with them."
    yield ""
    for name, value in _facts(incident.kills[0]):
        yield f"- {name}: {value}"
    yield from _candidates(first)
    if incident.lines:
        yield ""
        yield "Kernel log:"
        yield ""
        yield from _block(incident.lines[-_MOST_LINES:])


def _facts(kill: ReportedKill) -> Iterator[tuple[str, str]]:
    record = kill.record
    for name, value in victim_names(record).facets():
        if value is not None:
            yield name, code(value)
    cmdline = record["victim"]["cmdline"]
    if cmdline:
        yield "command line", code(" ".join(cmdline))
    limit = record["limit"]
    if limit is not None:
        usage, bound = size_text(limit["usage_bytes"]), bound_bytes(record)
        cgroup = "a memory cgroup" if limit["cgroup"] is None else code(limit["cgroup"])
        yield "limit", f"{cgroup}, {usage} of {size_text(bound)} used"
        memory = ", ".join(f"{part.label} {size_text(part.size_bytes)}" for part in memory_parts(limit))
        if memory:
            yield "memory under it", memory
    role = trigger_role(record)
    if record["trigger"] is not None and role is not None:
        yield "lowered by" if role == "writer" else "asked for memory", code(format_trigger(record["trigger"]))
    if kill.exit is not None:
        died = {True: "the container died with it", False: "the container runs on", None: ""}
        said = f"after {kill.exit['after_ns'] / 1e6:.1f} ms, {died[kill.exit['container_init_died']]}"
        yield "gone", said.removesuffix(", ")
    yield "id", code(record["id"])


def _candidates(record: OomKill) -> Iterator[str]:
    candidates = record["candidates"]
    if not candidates:
        return
    yield ""
    yield "| candidate | pid | resident | points | oom_score_adj |"
    yield "|---|---:|---:|---:|---:|"
    for candidate in candidates:
        numbers = (candidate["points"], candidate["oom_score_adj"])
        cells = (str(candidate["pid"]), size_text(candidate["rss_bytes"]), *(_number(number) for number in numbers))
        yield f"| {_cell(candidate['comm'])} | {' | '.join(cells)} |"


def code(text: str) -> str:
    """A code span of one line, whatever the text holds."""
    shown = printable(text)
    if len(shown) > _LONGEST:
        shown = f"{shown[:_LONGEST]}…"
    fence = "`" * (_longest_run(shown) + 1)
    pad = " " if shown[:1] in ("", "`", " ") or shown[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _cell(text: str | None) -> str:
    """A code span in a table: there a bar ends the cell, even within code."""
    return _UNKNOWN if text is None else code(text).replace("|", "\\|")


def _block(lines: Sequence[str]) -> Iterator[str]:
    fence = "`" * max(3, 1 + max(map(_longest_run, lines)))
    yield f"{fence}text"
    yield from map(printable, lines)
    yield fence


def _longest_run(text: str) -> int:
    return max((len(list(run)) for char, run in groupby(text) if char == "`"), default=0)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _number(number: int | None) -> str:
    return "?" if number is None else str(number)
