# SPDX-License-Identifier: Apache-2.0
"""Incidents -> Markdown for a ticket.

Names are untrusted: in a ticket they must not become a link, an image, a mention, or the end of a table.  Therefore all
data of a record is put into code spans, in which no issue tracker interprets any of these.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from tracer.base.printable import printable
from tracer.records.conclusions import bound_bytes, format_trigger, format_uptime, trigger_role, uptime_s
from tracer.records.model import OomKill
from tracer.records.recurrence import Regularity
from tracer.records.summary import describe_kill
from tracer.report.incidents import ReportedIncident, ReportedKill, Workload
from tracer.report.memory import memory_parts, size_text
from tracer.report.victim_names import victim_names

_WORKLOADS_MAX = 20
_VICTIMS_MAX = 10
_VALUE_MAX = 500
"""Maximum number of characters of a value."""
_LINES_MAX = 40
_UNKNOWN = "unknown"


def render_markdown(
    incidents: Sequence[ReportedIncident], workloads: Sequence[Workload], last: int, notes: Sequence[str]
) -> str:
    """A table of workloads, and the ``last`` incidents, newest first.  ``notes`` are trusted text."""
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
    for workload in workloads[:_WORKLOADS_MAX]:
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
    if len(workloads) > _WORKLOADS_MAX:
        yield ""
        yield f"{len(workloads) - _WORKLOADS_MAX} more workloads are not shown."


def pattern_text(regularity: Regularity) -> str:
    """The pattern of the intervals between kills, as trusted text."""
    if regularity.pattern == "too few":
        return f"too few to tell ({_count(regularity.incidents, 'dated incident')})"
    middle = span_text(regularity.median_s)
    if regularity.pattern == "saw-tooth":
        return f"saw-tooth: {regularity.near_median} of {regularity.incidents - 1} intervals near {middle}"
    if regularity.pattern == "burst":
        return f"bursts: {regularity.bursts}, the largest of {regularity.largest_burst} incidents"
    shortest, longest = span_text(regularity.shortest_s), span_text(regularity.longest_s)
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
    for kill in incident.kills[:_VICTIMS_MAX]:
        yield ""
        yield code(describe_kill(kill.record))
    if len(incident.kills) > _VICTIMS_MAX:
        yield ""
        yield f"{len(incident.kills) - _VICTIMS_MAX} more victims were killed with them."
    yield ""
    for name, value in _facts(incident.kills[0]):
        yield f"- {name}: {value}"
    yield from _candidates(first)
    if incident.lines:
        yield ""
        yield "Kernel log:"
        yield ""
        yield from _block(incident.lines[-_LINES_MAX:])


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
        usage, bound = size_text(limit["usage_bytes"]), bound_bytes(limit)
        cgroup = "a memory cgroup" if limit["cgroup"] is None else code(limit["cgroup"])
        yield "limit", f"{cgroup}, {usage} of {size_text(bound)} used"
        memory = ", ".join(f"{part.label} {size_text(part.size_bytes)}" for part in memory_parts(limit))
        if memory:
            yield "memory by kind", memory
    role = trigger_role(record)
    if record["trigger"] is not None and role is not None:
        yield "lowered by" if role == "writer" else "requested by", code(format_trigger(record["trigger"]))
    if kill.exit is not None:
        died = {True: "the container ended with it", False: "the container keeps running", None: ""}
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
    """A code span on one line, for any text."""
    shown = printable(text)
    if len(shown) > _VALUE_MAX:
        shown = f"{shown[:_VALUE_MAX]}…"
    fence = "`" * (_longest_run(shown) + 1)
    pad = " " if shown[:1] in ("", "`", " ") or shown[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _cell(text: str | None) -> str:
    """A code span in a table, where a bar ends the cell even within code."""
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
