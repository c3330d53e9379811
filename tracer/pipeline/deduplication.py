# SPDX-License-Identifier: Apache-2.0
"""Kills that two captures saw: the previous one, of another version of oomtrace, and the one that replaced it."""

from tracer.records.model import OomExit, OomKill

SAME_NS = 1_000_000_000
"""Both captures see the same mark in turn; the kernel does not reuse a thread id this soon."""


class PreviousKills:
    """The kills of previous captures.  A kill is recognized by its thread and time: each capture gives it its own id.

    Process id and start time would not do: without kprobes they are unknown.
    """

    def __init__(self) -> None:
        self._kills: dict[int, tuple[int, str, str]] = {}
        self._duplicates: dict[str, tuple[str, str]] = {}
        self._exited: set[str] = set()

    def add_kill(self, record: OomKill, killed_ns: int) -> None:
        """A kill that the previous capture saw is written."""
        self._kills[record["victim"]["tid"]] = killed_ns, record["id"], record["incident"]["id"]

    def add_exit(self, record: OomExit) -> None:
        """The previous capture saw this victim's exit."""
        self._exited.add(record["id"])

    def find_duplicate(self, record: OomKill, killed_ns: int) -> str | None:
        """The id of the previous capture's record, if this capture's record is of the same kill."""
        seen_ns, *ids = self._kills.get(record["victim"]["tid"], (0, "", ""))
        if not ids[0] or abs(killed_ns - seen_ns) > SAME_NS:
            return None
        self._duplicates[record["id"]] = ids[0], ids[1]
        return ids[0]

    def adopt_exit(self, record: OomExit) -> bool:
        """Give the exit of such a kill the id of the record that was written; False: that has an exit already."""
        ids = self._duplicates.pop(record["id"], None)
        if ids is None:
            return True
        record["id"], record["incident_id"] = ids
        return record["id"] not in self._exited
