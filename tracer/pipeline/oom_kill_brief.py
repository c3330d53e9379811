# SPDX-License-Identifier: Apache-2.0
"""The incident of a victim that was sent in brief (bpf/brief.h)."""

from tracer.capture import brief, wire
from tracer.pipeline.console_report import ConsoleReport
from tracer.records.model import Incident, Scope

CONSTRAINT_SCOPES: dict[int, Scope] = {0: "host", 1: "cpuset", 2: "mempolicy"}
"""enum oom_constraint."""


def brief_incident(victim: wire.VictimEvent, known: brief.BriefIncident, report: ConsoleReport) -> Incident:
    """The incident without its id; ``report``: the kernel log's lines, in tracepoint mode."""
    scope = _scope(known, report)
    in_group: bool | None = bool(victim.flags & wire.VICTIM_GROUP)
    if in_group and not known.flags & brief.BRIEF_OC and scope in (None, "memcg"):
        in_group = None  # memory.oom.group may be set above the limit, where it has no effect
    return {
        "id": "",
        "scope": scope,
        "group_kill": in_group,
        "victims": None,
        "gfp_mask": report.gfp_mask,
        "gfp_flags": report.gfp_flags,
        "order": report.order,
        "total_pages": None,
        "message": report.message or None,
    }


def brief_limit_cgroup(known: brief.BriefIncident, report: ConsoleReport, cgroup: str | None) -> str | None:
    """The cgroup whose limit was hit; None: no limit was hit, or it is unknown."""
    if cgroup is None or _scope(known, report) != "memcg":
        return None
    if report.limit_cgroup is not None:
        return report.limit_cgroup
    names = cgroup.split("/")[1:]
    if known.limit_level is None or known.limit_level > len(names):
        return None
    return "/" + "/".join(names[: known.limit_level])


def _scope(known: brief.BriefIncident, report: ConsoleReport) -> Scope | None:
    if not known.flags & brief.BRIEF_OC:
        return report.scope
    if known.flags & brief.BRIEF_MEMCG:
        return "memcg"
    return "sysrq" if known.flags & brief.BRIEF_SYSRQ else CONSTRAINT_SCOPES.get(known.constraint)
