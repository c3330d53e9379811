# SPDX-License-Identifier: Apache-2.0
"""Records from several sources -> incidents, each told once."""

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
    """A victim."""

    record: OomKill
    exit: OomExit | None = None
    lines: tuple[str, ...] = ()
    """What the kernel log says of its incident, where a log was read."""


@dataclass
class ReportedIncident:
    """One run of the OOM killer."""

    time_s: float | None
    """Unix time; None where no source tells."""
    kills: list[ReportedKill] = field(default_factory=list)

    @property
    def lines(self) -> tuple[str, ...]:
        return max((kill.lines for kill in self.kills), key=len, default=())


class Workload:
    """Kills of one workload on one node."""

    def __init__(self, name: str, node: str | None, incidents: Sequence[ReportedIncident], victims: int) -> None:
        self.name, self.node = name, node
        self.incidents = incidents
        self.victims = victims
        """Its own: an incident may have those of others, too."""
        self.regularity: Regularity = assess_regularity(
            [incident.time_s for incident in incidents if incident.time_s is not None]
        )


_Key = tuple[str | None, str]
"""Host and id of an incident."""


class _Told:
    """All that sources tell of one kill."""

    def __init__(self, record: OomKill, lines: tuple[str, ...]) -> None:
        self.best = record
        """Which tells most."""
        self.lines = lines
        self.time_s = unix_seconds(record["time"])
        self.incidents = [(record["host"]["name"], record["incident"]["id"])]
        self._all = [record]

    @property
    def rank(self) -> tuple[bool, int]:
        """The lower, the more it tells."""
        return (True, -_known(self.best)) if self.best["source"] == "kernel_log" else (False, 0)

    def places(self) -> Iterator[tuple[int, int] | str]:
        """Where twins meet: one of these is the same, or a thread's time is the next one or the one before."""
        if self.time_s is not None:
            yield self.best["victim"]["tid"], int(self.time_s // CLOCK_TOLERANCE_S)
        yield self.best["id"].partition("-")[2]

    def is_same(self, other: "_Told") -> bool:
        """Of two of the same id, whether they are of one kill.  What lacks a host must not make one of two hosts."""
        return all(may_be_same_kill(each, one) for each in self._all for one in other._all)

    def is_twin(self, other: "_Told") -> bool:
        """Of two of other ids, one of which is a kernel log's, as those of the programs are certain."""
        if "kernel_log" not in (self.best["source"], other.best["source"]):
            return False
        near = (
            self.time_s is not None
            and other.time_s is not None
            and abs(self.time_s - other.time_s) <= CLOCK_TOLERANCE_S
        )
        return (near or has_same_id(self.best, other.best)) and self.is_same(other)

    def join(self, other: "_Told") -> None:
        """Take what another one tells of the same kill."""
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


class _Same:
    """Incidents that several sources tell by several ids."""

    def __init__(self) -> None:
        self._first: dict[_Key, _Key] = {}

    def first(self, key: _Key) -> _Key:
        """What stands for all that are the same."""
        while (other := self._first.get(key, key)) != key:
            key = other
        return key

    def join(self, keys: Sequence[_Key]) -> _Key:
        """These are one; gives what stands for it."""
        first = self.first(keys[0])
        for key in keys[1:]:
            if (other := self.first(key)) != first:
                self._first[other] = first
        return first


class Collection:
    """Takes records in any order."""

    def __init__(self) -> None:
        self._kills: dict[str, list[_Told]] = {}
        """By their ids: those of two hosts may be the same."""
        self._exits = ExitIndex()
        self.repeated = 0
        """Kills that had been read already, from another source."""
        self.missing = 0
        """Kills that have no record, by what lost and gap records say."""

    def add(self, record: Record, lines: tuple[str, ...] = ()) -> None:
        """Take a record; ``lines`` are the kernel log's."""
        if record["type"] == "oom_kill":
            told = _Told(record, lines)
            others = self._kills.setdefault(record["id"], [])
            known = next((each for each in others if each.is_same(told)), None)
            if known is None:
                others.append(told)
            else:
                self.repeated += 1
                known.join(told)
        elif record["type"] == "oom_exit":
            self._exits.add(record)
        elif record["type"] == "lost":
            self.missing += record["count"]
        elif record["type"] == "gap":
            self.missing += record["missing"]

    def incidents(self) -> list[ReportedIncident]:
        """In the order of time; those of an unknown time come first."""
        found: dict[_Key, ReportedIncident] = {}
        same = _Same()
        for told in self._joined():
            kill = ReportedKill(told.best, self._exits.find(told.best), told.lines)
            key = same.join(told.incidents)
            if key not in found:
                found[key] = ReportedIncident(None)
            found[key].kills.append(kill)
        incidents: dict[_Key, ReportedIncident] = {}
        for key, incident in found.items():  # a later kill may have told that two are one
            first = incidents.setdefault(same.first(key), incident)
            if first is not incident:
                first.kills += incident.kills
        for incident in incidents.values():
            times = [time_s for kill in incident.kills if (time_s := unix_seconds(kill.record["time"])) is not None]
            incident.time_s = min(times, default=None)
        return sorted(incidents.values(), key=lambda incident: incident.time_s or 0.0)

    def _joined(self) -> list[_Told]:
        """What a kernel log tells is told by the programs, too, or by the log in another form: the same thread at the
        same time."""
        kept: dict[tuple[int, int] | str, list[_Told]] = defaultdict(list)
        order = [told for others in self._kills.values() for told in others]
        gone: set[int] = set()
        for told in sorted(order, key=lambda told: told.rank):
            places = list(told.places())
            near = [(at[0], at[1] + step) for at in places if not isinstance(at, str) for step in (-1, 1)]
            others = (each for at in [*places, *near] if at in kept for each in kept[at])
            twin = next((each for each in others if each.is_twin(told)), None)
            if twin is None:
                for at in places:
                    kept[at].append(told)
            else:
                twin.join(told)
                gone.add(id(told))
                self.repeated += 1
        self._kills = defaultdict(list)
        left = [told for told in order if id(told) not in gone]
        for told in left:
            self._kills[told.best["id"]].append(told)
        return left


def workloads(incidents: Sequence[ReportedIncident]) -> list[Workload]:
    """Those with the most incidents first; an incident with victims of several is one of each."""
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


def _known(value: object) -> int:
    """How many fields are not null."""
    if isinstance(value, dict):
        return sum(map(_known, value.values()))
    return value is not None
