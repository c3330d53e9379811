# SPDX-License-Identifier: Apache-2.0
"""Kills that two captures saw: one of an older version of oomtrace, and the one that took its place before it ended."""

from tracer.records.model import OomExit, OomKill

SAME_NS = 1_000_000_000
"""Both see the same mark, one after the other; no number of a thread is used twice within so long."""


class PreviousKills:
    """A thread is killed once: by its id and the time it is known again, whatever id the kill has.

    Not by the process and its start, which kernels without kprobes do not tell.
    """

    def __init__(self) -> None:
        self._told: dict[int, tuple[int, str, str]] = {}
        self._renamed: dict[str, tuple[str, str]] = {}
        self._gone: set[str] = set()

    def add_kill(self, record: OomKill, killed_ns: int) -> None:
        """The older capture's word on this kill is written."""
        self._told[record["victim"]["tid"]] = killed_ns, record["id"], record["incident"]["id"]

    def add_exit(self, record: OomExit) -> None:
        """The older capture has seen this victim's end."""
        self._gone.add(record["id"])

    def find_duplicate(self, record: OomKill, killed_ns: int) -> str | None:
        """The id of the older capture's kill, if the newer one's is the second on the same."""
        told_ns, *names = self._told.get(record["victim"]["tid"], (0, "", ""))
        if not names[0] or abs(killed_ns - told_ns) > SAME_NS:
            return None
        self._renamed[record["id"]] = names[0], names[1]
        return names[0]

    def adopt_exit(self, record: OomExit) -> bool:
        """Let the exit of such a kill name the record that was written; False: that has its exit already."""
        known = self._renamed.pop(record["id"], None)
        if known is None:
            return True
        record["id"], record["incident_id"] = known
        return record["id"] not in self._gone
