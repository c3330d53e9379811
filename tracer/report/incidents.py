# SPDX-License-Identifier: Apache-2.0
"""Records from several sources -> incidents, each told once."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tracer.event import Host, OomExit, OomKill, Record
from tracer.report.regularity import Regularity, regularity
from tracer.report.whose import whose

_SAME_S = 2.0
"""So far the clocks of a kernel log and of the programs may be apart."""


@dataclass
class Kill:
    """A victim."""

    record: OomKill
    exit: OomExit | None = None
    lines: tuple[str, ...] = ()
    """What the kernel log says of its incident, where a log was read."""


@dataclass
class Incident:
    """One run of the OOM killer."""

    time_s: float | None
    """Unix time; None where no source tells."""
    kills: list[Kill] = field(default_factory=list)

    @property
    def lines(self) -> tuple[str, ...]:
        return max((kill.lines for kill in self.kills), key=len, default=())


class Workload:
    """Kills of one workload on one node."""

    def __init__(self, name: str, node: str | None, incidents: Sequence[Incident]) -> None:
        self.name, self.node = name, node
        self.incidents = incidents
        self.victims = sum(len(incident.kills) for incident in incidents)
        self.regularity: Regularity = regularity(
            [incident.time_s for incident in incidents if incident.time_s is not None]
        )


class Collection:
    """Takes records in any order."""

    def __init__(self) -> None:
        self._kills: dict[str, Kill] = {}
        self._exits: dict[str, OomExit] = {}
        self.repeated = 0
        """Kills that had been read already, from another source."""
        self.missing = 0
        """Kills that have no record, by what lost and gap records say."""

    def add(self, record: Record, lines: tuple[str, ...] = ()) -> None:
        """Take a record; ``lines`` are the kernel log's."""
        if record["type"] == "oom_kill":
            known = self._kills.get(record["id"])
            if known is None:
                self._kills[record["id"]] = Kill(record, None, lines)
            else:
                self.repeated += 1
                known.lines = known.lines or lines
        elif record["type"] == "oom_exit":
            self._exits[record["id"]] = record
        elif record["type"] == "lost":
            self.missing += record["count"]
        elif record["type"] == "gap":
            self.missing += record["missing"]

    def incidents(self) -> list[Incident]:
        """In the order of time; those of an unknown time come first."""
        self._join_log()
        found: dict[tuple[str | None, str], Incident] = {}
        for identity, kill in self._kills.items():
            kill.exit = self._exits.get(identity)
            key = (kill.record["host"]["name"], kill.record["incident"]["id"])
            incident = found.get(key)
            if incident is None:
                incident = found[key] = Incident(None)
            incident.kills.append(kill)
        for incident in found.values():
            times = [time_s for kill in incident.kills if (time_s := seconds(kill.record["time"])) is not None]
            incident.time_s = min(times, default=None)
        return sorted(found.values(), key=lambda incident: incident.time_s or 0.0)

    def _join_log(self) -> None:
        """A kill that the programs saw and a kernel log tells is one: the same thread at the same time."""
        seen: dict[int, list[tuple[float, Kill]]] = defaultdict(list)
        logged: list[tuple[str, float, Kill]] = []
        for identity, kill in self._kills.items():
            time_s = seconds(kill.record["time"])
            if time_s is None:
                continue
            if kill.record["source"] == "kernel_log":
                logged.append((identity, time_s, kill))
            else:
                seen[kill.record["victim"]["tid"]].append((time_s, kill))
        for identity, time_s, kill in logged:
            for other_s, other in seen.get(kill.record["victim"]["tid"], ()):
                if abs(other_s - time_s) <= _SAME_S and _same(kill.record, other.record):
                    other.lines = other.lines or kill.lines
                    del self._kills[identity]
                    self.repeated += 1
                    break


def workloads(incidents: Sequence[Incident]) -> list[Workload]:
    """Those with the most incidents first; an incident with victims of several is one of each."""
    found: dict[tuple[str | None, str], dict[int, Incident]] = defaultdict(dict)
    for number, incident in enumerate(incidents):
        for kill in incident.kills:
            names = whose(kill.record)
            found[names.node, names.workload][number] = incident
    made = [Workload(name, node, list(of.values())) for (node, name), of in found.items()]
    return sorted(made, key=lambda workload: (-len(workload.incidents), workload.name))


def seconds(time: str | None) -> float | None:
    """Unix time of a record's time; None where it is none."""
    if time is None:
        return None
    try:  # Python 3.10 reads neither nanoseconds nor Z
        return datetime.fromisoformat(f"{time.removesuffix('Z')[:26]}+00:00").timestamp()
    except (ValueError, OverflowError):
        return None


def _same(one: OomKill, other: OomKill) -> bool:
    comms = (one["victim"]["comm"], other["victim"]["comm"])
    return (None in comms or comms[0] == comms[1]) and _same_host(one["host"], other["host"])


def _same_host(one: Host, other: Host) -> bool:
    if one["boot_id"] is not None and other["boot_id"] is not None:
        return one["boot_id"] == other["boot_id"]
    if one["name"] is None or other["name"] is None:
        return True
    return one["name"].partition(".")[0] == other["name"].partition(".")[0]
