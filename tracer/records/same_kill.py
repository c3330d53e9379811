# SPDX-License-Identifier: Apache-2.0
"""Decides whether two records are of the same kill: its sources have different ids and clocks."""

from tracer.records.model import Host, OomExit, OomKill, Sigkill

CLOCK_TOLERANCE_S = 2.0
"""Maximum difference between the times of a kernel log and of the BPF programs."""

KillRecord = OomKill | Sigkill


def is_same_host(one: Host, other: Host) -> bool:
    """Whether two records may be of the same host; unknown values match any."""
    if one["boot_id"] is not None and other["boot_id"] is not None:
        return one["boot_id"] == other["boot_id"]
    if one["name"] is None or other["name"] is None:
        return True
    return one["name"].partition(".")[0] == other["name"].partition(".")[0]


def may_be_same_kill(one: KillRecord, other: KillRecord) -> bool:
    """Whether thread, name and host agree and the ids do not differ; the caller compares the times."""
    if one["victim"]["tid"] != other["victim"]["tid"] or _has_other_id(one, other):
        return False
    comms = (one["victim"]["comm"], other["victim"]["comm"])
    return (None in comms or comms[0] == comms[1]) and is_same_host(one["host"], other["host"])


def has_same_id(one: KillRecord, other: KillRecord) -> bool:
    """Whether the ids of two kills of one thread are the same; a log without a boot id has 0 in its place."""
    if one["id"] == other["id"]:
        return True
    (boot, _, rest), (other_boot, _, other_rest) = one["id"].partition("-"), other["id"].partition("-")
    return rest == other_rest and rest[:1] == "k" and "0" in (boot, other_boot)


def _has_other_id(one: KillRecord, other: KillRecord) -> bool:
    """Whether the ids are of different kills: of different boots, or at different microseconds since one boot."""
    (boot, _, rest), (other_boot, _, other_rest) = one["id"].partition("-"), other["id"].partition("-")
    if boot != other_boot:
        return "0" not in (boot, other_boot)
    return rest[:1] == other_rest[:1] == "k" and rest != other_rest


class ExitIndex:
    """``oom_exit`` records by id: they may be in another file than their kill, and before it."""

    def __init__(self) -> None:
        self._exits: dict[str, list[OomExit]] = {}

    def add(self, record: OomExit) -> None:
        """Add an exit; it replaces an earlier one of the same kill."""
        others = [each for each in self._exits.get(record["id"], ()) if each["host"]["name"] != record["host"]["name"]]
        self._exits[record["id"]] = [*others, record]

    def find(self, kill: KillRecord) -> OomExit | None:
        """The exit of a kill; None: there is none."""
        found = self._exits.get(kill["id"], ())
        return next((each for each in found if is_same_host(each["host"], kill["host"])), None)
