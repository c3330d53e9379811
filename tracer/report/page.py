# SPDX-License-Identifier: Apache-2.0
"""Incidents -> one self-contained HTML page, which runs nothing but its own script.

Records are data to the page: JSON without any character that is special in HTML, shown as text.
"""

import base64
import hashlib
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracer import __version__
from tracer.base.clock import format_rfc3339
from tracer.base.printable import printable
from tracer.encoding.encoder import computed_json
from tracer.records.conclusions import bound_bytes, format_uptime, trigger_role, uptime_s
from tracer.records.summary import describe_kill
from tracer.report.incidents import ReportedIncident, workloads
from tracer.report.markdown import pattern_text
from tracer.report.memory import memory_parts
from tracer.report.victim_names import FACETS, search_terms, victim_names

PARTS = Path(__file__).with_name("page_parts")
SCRIPTS = ("data", "kernel_log", "timeline", "list", "incident", "app")
_PLACE = re.compile(r"@([a-z-]+)@")
_HTML = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&'"})


def render_page(incidents: Sequence[ReportedIncident], notes: Sequence[str]) -> str:
    """The HTML page; ``notes`` are trusted text."""
    style = (PARTS / "page.css").read_text()
    code = "\n".join((PARTS / f"{name}.js").read_text() for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{code}}})();\n'
    values = {
        "style": style,
        "script": script,
        "style-hash": _hash(style),
        "script-hash": _hash(script),
        "index": _json(_index(incidents, notes)),
        "records": "\n".join(_json(_line(incident)) for incident in incidents),
    }
    # In one pass, so that placeholders in inserted text are not replaced.
    return _PLACE.sub(lambda match: values[match[1]], (PARTS / "page.html").read_text())


def _json(value: object) -> str:
    return computed_json(value).decode().translate(_HTML)


def _hash(text: str) -> str:
    """Hash source of a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _line(incident: ReportedIncident) -> dict[str, Any]:
    """The details of an incident, which the page parses on demand."""
    kills = incident.kills
    return {
        "said": [printable(describe_kill(kill.record)) for kill in kills],
        "parts": [list(part) for part in memory_parts(kills[0].record["limit"])],
        "role": trigger_role(kills[0].record),
        "sinceBoot": _since_boot(incident),
        "lines": incident.lines,
        "exits": [kill.exit for kill in kills],
        "records": [kill.record for kill in kills],
    }


def _since_boot(incident: ReportedIncident) -> str | None:
    """Time since boot, if the log has no dates."""
    uptime = uptime_s(incident.kills[0].record)
    return None if uptime is None else format_uptime(uptime)


def _index(incidents: Sequence[ReportedIncident], notes: Sequence[str]) -> dict[str, Any]:
    """The part that the page parses at once: rows of its list, names, workloads."""
    numbered = {facet: _Names() for facet in (*FACETS, "scope")}
    numbers = {id(incident): number for number, incident in enumerate(incidents)}
    rows = [_row(incident, numbered) for incident in incidents]
    return {
        "version": __version__,
        "made": format_rfc3339(time.time_ns()),
        "notes": list(notes),
        "columns": list(rows[0]) if rows else [],
        "rows": [list(row.values()) for row in rows],
        "names": {facet: list(of.numbers) for facet, of in numbered.items()},
        "workloads": [
            {
                "name": workload.name,
                "node": workload.node,
                "victims": workload.victims,
                "incidents": [numbers[id(incident)] for incident in workload.incidents],
                "text": pattern_text(workload.regularity),
            }
            for workload in workloads(incidents)
        ],
    }


class _Names:
    """Numbers names, from 0."""

    def __init__(self) -> None:
        self.numbers: dict[str | None, int] = {}

    def number(self, name: str | None) -> int:
        return self.numbers.setdefault(name, len(self.numbers))


def _row(incident: ReportedIncident, numbered: dict[str, _Names]) -> dict[str, Any]:
    """Column -> value; of a facet, the number of a name, or one per victim if they differ."""
    kills = incident.kills
    record = kills[0].record
    owners = [victim_names(kill.record) for kill in kills]
    facets: dict[str, Any] = {}
    for facet in FACETS:
        found = [numbered[facet].number(getattr(owner, facet)) for owner in owners]
        facets[facet] = found[0] if len(set(found)) == 1 else found
    moment = None if incident.time_s is None else round(incident.time_s * 1000)
    victim = record["victim"]
    searched = dict.fromkeys(word for kill in kills for word in search_terms(kill.record))
    return {
        "time": moment,
        "sinceBoot": _since_boot(incident) if moment is None else None,
        "victims": len(kills),
        **facets,
        "scope": numbered["scope"].number(record["incident"]["scope"]),
        "comm": victim["comm"],
        "rss": victim["rss_bytes"],
        "limit": bound_bytes(record["limit"]) or None,
        "text": "\n".join(searched).lower(),
    }
