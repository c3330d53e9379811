# SPDX-License-Identifier: Apache-2.0
"""Kills that two captures saw: one of an older version of oomtrace, and the one that took its place before it ended."""

from tracer.event import OomExit, OomKill


class Handover:
    """A process is killed once: by its pid and its start it is known again, whatever id the kill has."""

    def __init__(self) -> None:
        self._told: dict[tuple[int | None, int], tuple[str, str]] = {}
        self._renamed: dict[str, tuple[str, str]] = {}

    def told(self, record: OomKill, started_ns: int) -> None:
        """The older capture's word on this kill is written."""
        self._told[record["victim"]["pid"], started_ns] = record["id"], record["incident"]["id"]

    def is_double(self, record: OomKill, started_ns: int) -> bool:
        """Whether the newer capture's is the second on the same kill."""
        known = self._told.get((record["victim"]["pid"], started_ns))
        if known is not None:
            self._renamed[record["id"]] = known
        return known is not None

    def rename(self, record: OomExit) -> None:
        """Let the exit of such a kill name the record that was written."""
        known = self._renamed.pop(record["id"], None)
        if known is not None:
            record["id"], record["incident_id"] = known
