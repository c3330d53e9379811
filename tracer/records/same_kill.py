# SPDX-License-Identifier: Apache-2.0
"""Whether two records are of one kill: several sources tell of it, each with ids and a clock of its own."""

from tracer.records.model import Host, OomExit, OomKill, Sigkill

CLOCK_TOLERANCE_S = 2.0
"""So far the clocks of a kernel log and of the programs may be apart."""

KillRecord = OomKill | Sigkill


def is_same_host(one: Host, other: Host) -> bool:
    """What is not known may be the same."""
    if one["boot_id"] is not None and other["boot_id"] is not None:
        return one["boot_id"] == other["boot_id"]
    if one["name"] is None or other["name"] is None:
        return True
    return one["name"].partition(".")[0] == other["name"].partition(".")[0]


def may_be_same_kill(one: KillRecord, other: KillRecord) -> bool:
    """Whether thread, name and host agree, and the ids do not tell two; when they were says the rest."""
    if one["victim"]["tid"] != other["victim"]["tid"] or _has_other_id(one, other):
        return False
    comms = (one["victim"]["comm"], other["victim"]["comm"])
    return (None in comms or comms[0] == comms[1]) and is_same_host(one["host"], other["host"])


def has_same_id(one: KillRecord, other: KillRecord) -> bool:
    """Whether the ids say so, of two of the same thread: a log that does not name its boot has 0 for it."""
    if one["id"] == other["id"]:
        return True
    (boot, _, rest), (other_boot, _, other_rest) = one["id"].partition("-"), other["id"].partition("-")
    return rest == other_rest and rest[:1] == "k" and "0" in (boot, other_boot)


def _has_other_id(one: KillRecord, other: KillRecord) -> bool:
    """Whether the ids say that they are two: of two boots, or of one at other microseconds since it."""
    (boot, _, rest), (other_boot, _, other_rest) = one["id"].partition("-"), other["id"].partition("-")
    if boot != other_boot:
        return "0" not in (boot, other_boot)
    return rest[:1] == other_rest[:1] == "k" and rest != other_rest


class ExitIndex:
    """Exits, which may stand in another file than their kill, and before it."""

    def __init__(self) -> None:
        self._exits: dict[str, list[OomExit]] = {}

    def add(self, record: OomExit) -> None:
        """Take one; of the same exit again the last counts."""
        known = [each for each in self._exits.get(record["id"], ()) if each["host"]["name"] != record["host"]["name"]]
        self._exits[record["id"]] = [*known, record]

    def find(self, kill: KillRecord) -> OomExit | None:
        """That of a kill; None: there is none."""
        found = self._exits.get(kill["id"], ())
        return next((each for each in found if is_same_host(each["host"], kill["host"])), None)
