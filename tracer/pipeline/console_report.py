# SPDX-License-Identifier: Apache-2.0
"""The kernel's own report of an OOM kill, for hosts where struct oom_control cannot be read.

Formats: mm/oom_kill.c, dump_header() and dump_oom_victim(), Linux 5.0 and later.
"""

from collections.abc import Iterable
from typing import NamedTuple

from tracer.logs.oom_lines import INVOKED, KILLED_BEGIN, SCOPES, SUMMARY_BEGIN, SUMMARY_END, find_limit_cgroup
from tracer.records.model import Scope


class ConsoleReport(NamedTuple):
    """A field is None if its line is missing: the kernel rate-limits all lines but the last one."""

    scope: Scope | None
    gfp_mask: int | None
    gfp_flags: str | None
    order: int | None
    message: str | None
    limit_cgroup: str | None
    """The cgroup whose limit was hit."""


def parse_console_report(pieces: Iterable[bytes], victim_cgroup: bytes) -> ConsoleReport:
    """The report printed in ``pieces``, for a victim in ``victim_cgroup`` (a path as the kernel prints it).

    The pieces are recognized by their order, not by their text: names in them may contain anything.
    """
    rest = list(pieces)
    gfp_mask = gfp_flags = order = message = limit_cgroup = None
    scope: Scope | None = None
    if rest and (match := INVOKED.match(rest[0])):
        gfp_mask, order = int(match[2], 16), int(match[4])
        gfp_flags = match[3].decode("utf-8", "backslashreplace") if match[3] else None
        del rest[0]
    summary_ends = len(rest) < 2 or SUMMARY_END.search(b"".join(rest[:-1])) is not None
    if rest and summary_ends and (match := KILLED_BEGIN.match(rest[-1])):
        message = match[1].decode("utf-8", "backslashreplace")
        del rest[-1]
    summary = b"".join(piece.rstrip(b"\n") for piece in rest)
    if match := SUMMARY_BEGIN.match(summary):
        scope = SCOPES.get(match[1])
        limit = find_limit_cgroup(summary, victim_cgroup)
        limit_cgroup = None if limit is None else limit.decode("utf-8", "backslashreplace")
    if order == -1:
        scope = "sysrq"
    if scope is None and message is not None and message.startswith("Memory cgroup"):
        scope = "memcg"
    return ConsoleReport(scope, gfp_mask, gfp_flags, order, message, limit_cgroup)
