# SPDX-License-Identifier: Apache-2.0
"""An incident -> text and bars for a terminal.  Unprintable characters are escaped here."""

from collections.abc import Iterator
from typing import NamedTuple

from tracer.base.printable import printable
from tracer.records.conclusions import bound_bytes, format_trigger, format_uptime, trigger_role, uptime_s
from tracer.records.matching import shown_unit
from tracer.records.summary import describe_kill
from tracer.report.incidents import ReportedIncident, ReportedKill
from tracer.report.memory import memory_parts, size_text
from tracer.report.victim_names import victim_names

VICTIMS_MAX = 20


class DetailLine(NamedTuple):
    """A heading, a labelled value, or a bar whose length is ``share``, 0 to 1."""

    style: str
    """heading, said, fact, victim, bar or part."""
    label: str
    text: str
    share: float | None = None


def list_row(incident: ReportedIncident) -> tuple[str, str, str]:
    """Columns of the list: time, victim, size."""
    record = incident.kills[0].record
    more = f" +{len(incident.kills) - 1}" if len(incident.kills) > 1 else ""
    names = victim_names(record)
    where = names.container or shown_unit(record)
    who = f"{record['victim']['comm'] or 'a process'}{more}{f' in {where}' if where else ''}"
    bound = bound_bytes(record["limit"])
    size = size_text(record["victim"]["rss_bytes"])
    uptime = uptime_s(record)
    when = "time unknown" if uptime is None else f"{uptime:.2f} s up"
    if record["time"] is not None:
        when = record["time"][5:19].replace("T", " ")
    return printable(when), printable(who), size if bound is None else f"{size} of {size_text(bound)}"


def detail_lines(incident: ReportedIncident) -> Iterator[DetailLine]:
    """Lines of the detail view."""
    first = incident.kills[0]
    for kill in incident.kills[:VICTIMS_MAX]:
        yield DetailLine("said", "", printable(describe_kill(kill.record)))
    if len(incident.kills) > VICTIMS_MAX:
        yield DetailLine("fact", "", f"and {len(incident.kills) - VICTIMS_MAX} more victims")
    for label, text in _facts(first):
        yield DetailLine("fact", label, printable(text))
    yield from _candidates(first, {kill.record["victim"]["pid"] for kill in incident.kills})
    yield from _memory(first)


def _facts(kill: ReportedKill) -> Iterator[tuple[str, str]]:
    record = kill.record
    victim, limit, trigger = record["victim"], record["limit"], record["trigger"]
    uptime = uptime_s(record)
    yield "time", record["time"] or ("unknown" if uptime is None else format_uptime(uptime))
    for label, name in victim_names(record).facets():
        if name is not None:
            yield label, name
    if victim["cmdline"]:
        yield "command", " ".join(victim["cmdline"])
    if limit is not None:
        usage = f": {size_text(limit['usage_bytes'])} of {size_text(bound_bytes(limit))}"
        yield "limit", f"{limit['cgroup'] or 'a memory cgroup'}{usage}"
    role = trigger_role(record)
    if trigger is not None and role is not None:
        yield "lowered by" if role == "writer" else "requested by", format_trigger(trigger)
    if kill.exit is not None:
        died = {True: ", the container ended with it", False: "; the container keeps running", None: ""}
        yield "gone", f"after {kill.exit['after_ns'] / 1e6:.1f} ms{died[kill.exit['container_init_died']]}"


def _candidates(kill: ReportedKill, victims: set[int | None]) -> Iterator[DetailLine]:
    record = kill.record
    bound = bound_bytes(record["limit"])
    victim = record["victim"]
    candidates = record["candidates"]
    if not candidates:
        if bound and victim["rss_bytes"] is not None:
            yield DetailLine("heading", "", "Victim and limit")
            yield DetailLine(
                "victim",
                printable(victim["comm"] or "?"),
                size_text(victim["rss_bytes"]),
                _share(victim["rss_bytes"], bound),
            )
        return
    sizes = [candidate["rss_bytes"] or 0 for candidate in candidates]
    total_bytes = max(bound or 0, *sizes, 1)
    yield DetailLine("heading", "", "Candidates" + (f", of {size_text(bound)}" if bound is not None else ""))
    for candidate, size in zip(candidates, sizes, strict=True):
        style = "victim" if candidate["pid"] in victims else "bar"
        label = f"{printable(candidate['comm'])} ({candidate['pid']})"
        yield DetailLine(style, label, size_text(candidate["rss_bytes"]), _share(size, total_bytes))


def _memory(kill: ReportedKill) -> Iterator[DetailLine]:
    found = memory_parts(kill.record["limit"])
    total_bytes = max(bound_bytes(kill.record["limit"]) or 0, sum(part.size_bytes for part in found), 1)
    if found:
        yield DetailLine("heading", "", f"Memory by kind, of {size_text(total_bytes)}")
    for part in found:
        yield DetailLine("part", part.label, size_text(part.size_bytes), _share(part.size_bytes, total_bytes))


def _share(size_bytes: int, total_bytes: int) -> float:
    return min(1.0, max(0.0, size_bytes / total_bytes))
