# SPDX-License-Identifier: Apache-2.0
"""Records from several sources -> incidents without duplicates."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tracer.records.model import OomExit, OomKill, Record
from tracer.records.recurrence import Regularity, assess_regularity
from tracer.records.same_kill import CLOCK_TOLERANCE_S, ExitIndex, has_same_id, may_be_same_kill
from tracer.records.unix_time import unix_seconds
from tracer.report.victim_names import victim_names


@dataclass
class ReportedKill:
    """The kill of one victim."""

    record: OomKill
    exit: OomExit | None = None
    lines: tuple[str, ...] = ()
    """Kernel log lines of the incident; empty if no log has it."""


@dataclass
class ReportedIncident:
    """One invocation of the OOM killer, with its kills."""

    time_s: float | None
    """Unix time; None: unknown."""
    kills: list[ReportedKill] = field(default_factory=list)

    @property
    def lines(self) -> tuple[str, ...]:
        return max((kill.lines for kill in self.kills), key=len, default=())


class Workload:
    """Incidents of one workload on one node."""

    def __init__(self, name: str, node: str | None, incidents: Sequence[ReportedIncident], victims: int) -> None:
        self.name, self.node = name, node
        self.incidents = incidents
        self.victims = victims
        """Victims of this workload; its incidents may have others, too."""
        self.regularity: Regularity = assess_regularity(
            [incident.time_s for incident in incidents if incident.time_s is not None]
        )


_IncidentKey = tuple[str | None, str]
"""Host name and id of an incident."""


class _KillRecords:
    """The records of one kill in all sources."""

    def __init__(self, record: OomKill, lines: tuple[str, ...]) -> None:
        self.best = record
        """The most detailed record."""
        self.lines = lines
        self.time_s = unix_seconds(record["time"])
        self.incidents = [(record["host"]["name"], record["incident"]["id"])]
        self._all = [record]

    @property
    def rank(self) -> tuple[bool, int]:
        """Sort key: lower is more detailed."""
        return (True, -_count_known(self.best)) if self.best["source"] == "kernel_log" else (False, 0)

    def bucket_keys(self) -> Iterator[tuple[int, int] | str]:
        """Keys for finding duplicates: equal keys, or the same thread in adjacent intervals of time."""
        if self.time_s is not None:
            yield self.best["victim"]["tid"], int(self.time_s // CLOCK_TOLERANCE_S)
        yield self.best["id"].partition("-")[2]

    def is_same_kill(self, other: "_KillRecords") -> bool:
        """Whether two with the same id are one kill; a record without host name must not join those of two hosts."""
        return all(may_be_same_kill(each, one) for each in self._all for one in other._all)

    def is_duplicate(self, other: "_KillRecords") -> bool:
        """Whether two with different ids are one kill: one is a kernel log's, as ids of BPF programs are unique."""
        if "kernel_log" not in (self.best["source"], other.best["source"]):
            return False
        near = (
            self.time_s is not None
            and other.time_s is not None
            and abs(self.time_s - other.time_s) <= CLOCK_TOLERANCE_S
        )
        return (near or has_same_id(self.best, other.best)) and self.is_same_kill(other)

    def join(self, other: "_KillRecords") -> None:
        """Merge another record of the same kill."""
        self.lines = max(self.lines, other.lines, key=len)
        self.incidents += [key for key in other.incidents if key not in self.incidents]
        self._all += [record for record in other._all if all(record["host"] != each["host"] for each in self._all)]
        if other.best != self.best and other.rank < self.rank:
            self.best, self.time_s = other.best, other.time_s
        for each in self._all:
            if self.best["host"]["name"] is None and each["host"]["name"] is not None:
                self.best = {**self.best, "host": each["host"]}
            if self.best["time"] is None and each["time"] is not None:
                self.best, self.time_s = {**self.best, "time": each["time"]}, unix_seconds(each["time"])


class _IncidentKeys:
    """Union-find over ids of the same incident in several sources."""

    def __init__(self) -> None:
        self._parents: dict[_IncidentKey, _IncidentKey] = {}

    def representative(self, key: _IncidentKey) -> _IncidentKey:
        """The representative of a key."""
        while (other := self._parents.get(key, key)) != key:
            key = other
        return key

    def join(self, keys: Sequence[_IncidentKey]) -> _IncidentKey:
        """Join the keys of one incident; returns the representative."""
        first = self.representative(keys[0])
        for key in keys[1:]:
            if (other := self.representative(key)) != first:
                self._parents[other] = first
        return first


class Collection:
    """Collects records in any order."""

    def __init__(self) -> None:
        self._kills: dict[str, list[_KillRecords]] = {}
        """By id, which two hosts may share."""
        self._exits = ExitIndex()
        self.repeated = 0
        """Duplicates: kills that several sources have."""
        self.missing = 0
        """Kills without a record, as counted by lost and gap records."""

    def add(self, record: Record, lines: tuple[str, ...] = ()) -> None:
        """Add a record; ``lines``: kernel log lines of its incident."""
        if record["type"] == "oom_kill":
            records = _KillRecords(record, lines)
            others = self._kills.setdefault(record["id"], [])
            same = next((each for each in others if each.is_same_kill(records)), None)
            if same is None:
                others.append(records)
            else:
                self.repeated += 1
                same.join(records)
        elif record["type"] == "oom_exit":
            self._exits.add(record)
        elif record["type"] == "lost":
            self.missing += record["count"]
        elif record["type"] == "gap":
            self.missing += record["missing"]

    def incidents(self) -> list[ReportedIncident]:
        """All incidents in order of time, undated ones first."""
        found: dict[_IncidentKey, ReportedIncident] = {}
        keys = _IncidentKeys()
        for records in self._merge_duplicates():
            kill = ReportedKill(records.best, self._exits.find(records.best), records.lines)
            key = keys.join(records.incidents)
            if key not in found:
                found[key] = ReportedIncident(None)
            found[key].kills.append(kill)
        incidents: dict[_IncidentKey, ReportedIncident] = {}
        for key, incident in found.items():  # a later kill may have joined two of them
            first = incidents.setdefault(keys.representative(key), incident)
            if first is not incident:
                first.kills += incident.kills
        for incident in incidents.values():
            times = [time_s for kill in incident.kills if (time_s := unix_seconds(kill.record["time"])) is not None]
            incident.time_s = min(times, default=None)
        return sorted(incidents.values(), key=lambda incident: incident.time_s or 0.0)

    def _merge_duplicates(self) -> list[_KillRecords]:
        """Merge kills that the BPF programs and a kernel log have, or two forms of a log: same thread, same time."""
        kept: dict[tuple[int, int] | str, list[_KillRecords]] = defaultdict(list)
        order = [records for others in self._kills.values() for records in others]
        merged: set[int] = set()
        for records in sorted(order, key=lambda records: records.rank):
            keys = list(records.bucket_keys())
            near = [(at[0], at[1] + step) for at in keys if not isinstance(at, str) for step in (-1, 1)]
            others = (each for at in [*keys, *near] if at in kept for each in kept[at])
            duplicate = next((each for each in others if each.is_duplicate(records)), None)
            if duplicate is None:
                for at in keys:
                    kept[at].append(records)
            else:
                duplicate.join(records)
                merged.add(id(records))
                self.repeated += 1
        self._kills = defaultdict(list)
        remaining = [records for records in order if id(records) not in merged]
        for records in remaining:
            self._kills[records.best["id"]].append(records)
        return remaining


def workloads(incidents: Sequence[ReportedIncident]) -> list[Workload]:
    """Workloads, those with the most incidents first; an incident with victims of several counts for each."""
    found: dict[tuple[str | None, str], list[ReportedIncident]] = defaultdict(list)
    for incident in incidents:
        for kill in incident.kills:
            names = victim_names(kill.record)
            found[names.node, names.workload].append(incident)
    made = []
    for (node, name), of_victims in found.items():
        of = list({id(incident): incident for incident in of_victims}.values())
        made.append(Workload(name, node, of, len(of_victims)))
    return sorted(made, key=lambda workload: (-len(workload.incidents), workload.name))


def _count_known(value: object) -> int:
    """Number of fields that are not null."""
    if isinstance(value, dict):
        return sum(map(_count_known, value.values()))
    return value is not None
