# SPDX-License-Identifier: Apache-2.0
"""Lines -> incidents that pass the filter, newest first, and counters."""

from collections import deque

from tracer.encoding.decoder import InvalidRecordError, RecordReader
from tracer.records.model import OomKill
from tracer.records.unix_time import unix_seconds
from tracer.report.incidents import ReportedIncident, ReportedKill
from tracer.report.victim_names import search_terms

INCIDENTS_MAX = 10_000
"""Maximum number of incidents in memory; older ones are only counted."""


class ListedIncident:
    """An incident with its search text."""

    def __init__(self, incident: ReportedIncident, number: int) -> None:
        self.incident = incident
        self.number = number
        """Sequence number: the newest matches the highest."""
        self._text = ""
        self._kills = 0

    def matches(self, words: list[str]) -> bool:
        """Whether its search text contains all the words."""
        if self._kills != len(self.incident.kills):
            self._kills = len(self.incident.kills)
            self._text = "\n".join(name for kill in self.incident.kills for name in search_terms(kill.record)).lower()
        return all(word in self._text for word in words)


class IncidentList:
    """Incidents of all lines; ``shown`` are those that pass the filter, newest first."""

    def __init__(self) -> None:
        self._records = RecordReader()
        self._all: deque[ListedIncident] = deque()
        self._incidents: dict[tuple[str | None, str], ListedIncident] = {}
        self._kills: dict[tuple[str | None, str], ReportedKill] = {}
        """By host and id, as incidents are."""
        self._words: list[str] = []
        self.shown: deque[ListedIncident] = deque()
        self.incidents = self.victims = self.missing = self.bad = 0
        """Since the start."""
        self.started = ""
        """Host and source of the last start record."""

    def take(self, line: bytes) -> None:
        """Add a line; lines that are not records are counted as bad."""
        try:
            record = self._records.read(line)
        except InvalidRecordError:
            self.bad += 1
            return
        if record is None:
            return
        if record["type"] == "oom_kill":
            self._add_kill(record)
        elif record["type"] == "oom_exit":
            kill = self._kills.get((record["host"]["name"], record["id"]))
            if kill is not None:
                kill.exit = record
        elif record["type"] == "lost":
            self.missing += record["count"]
        elif record["type"] == "gap":
            self.missing += record["missing"]
        elif record["type"] == "start":
            self.started = f"{record['host']['name'] or 'attached'}, {record['source']}"

    def filter(self, text: str) -> None:
        """Show the incidents whose search text contains all the words."""
        self._words = text.lower().split()
        self.shown = deque(shown for shown in self._all if shown.matches(self._words))

    def _add_kill(self, record: OomKill) -> None:
        host = record["host"]["name"]
        if (host, record["id"]) in self._kills:
            return
        kill = self._kills[host, record["id"]] = ReportedKill(record)
        self.victims += 1
        key = (host, record["incident"]["id"])
        known = self._incidents.get(key)
        if known is not None:
            was = known.matches(self._words)
            known.incident.kills.append(kill)
            if not was and known.matches(self._words):
                newer = sum(each.number > known.number for each in self.shown)
                self.shown.insert(newer, known)
            return
        self.incidents += 1
        shown = self._incidents[key] = ListedIncident(
            ReportedIncident(unix_seconds(record["time"]), [kill]), self.incidents
        )
        self._all.appendleft(shown)
        if shown.matches(self._words):
            self.shown.appendleft(shown)
        while len(self._all) > INCIDENTS_MAX:
            self._drop(self._all.pop())

    def _drop(self, old: ListedIncident) -> None:
        record = old.incident.kills[0].record
        del self._incidents[record["host"]["name"], record["incident"]["id"]]
        for kill in old.incident.kills:
            del self._kills[kill.record["host"]["name"], kill.record["id"]]
        if self.shown and self.shown[-1] is old:
            self.shown.pop()
