# SPDX-License-Identifier: Apache-2.0
"""Conclusions from an ``oom_kill`` record that its fields do not state, for all commands that describe kills."""

import re
from typing import Literal

from tracer.records.matching import is_below
from tracer.records.model import NO_LIMIT_BYTES, Candidate, Limit, OomKill, Sigkill, Trigger

LOG_CANDIDATES = 10
"""Maximum number of candidates in a record from a log: the largest; a record with fewer has all of them."""
_EXCESS_DIVISOR = 8
"""If usage exceeds the limit by more than 1/8, the limit was lowered: charges fail at the limit.  A smaller excess may
be concurrent charges, or charges that cannot fail (__GFP_NOFAIL, sockets)."""
_PAGE_SIZES = (4096, 16384, 65536)
_ESTIMATE_RATIO = 1.5
"""Maximum ratio between an estimate and a page size.  Page sizes differ by a factor of 4; the victim may grow between
its score and its kill."""
_SIZES_MIN = 8
"""Number of sizes that prove a larger page size: one size in four is a multiple of 16 KiB by chance."""
_UPTIME = re.compile(r"[^-]*-k([0-9a-f]{1,15})(?:-|\Z)")
"""The id of a record from a kernel log: microseconds since boot, in hexadecimal, follow ``-k``."""
_IN_UB = re.compile(r"Out of memory in UB (\d{1,10})")

TriggerRole = Literal["victim", "requester", "outsider", "writer"]
"""The process for which the kernel ran the OOM killer: ``victim`` itself; ``requester``, another process that
requested memory; ``outsider``, one that did so from outside the limit's cgroup; ``writer``, one outside that lowered
the limit."""


def bound_bytes(limit: Limit | None) -> int | None:
    """The limit that was hit, in bytes: of memory, or of memory plus swap (cgroup v1) if only that is limited."""
    for bound in () if limit is None else (limit["limit_bytes"], limit["memsw_limit_bytes"]):
        if bound is not None and bound < NO_LIMIT_BYTES:
            return bound
    return None


def swap_allowance_bytes(limit: Limit) -> int | None:
    """Swap that the limits allow, in bytes; NO_LIMIT_BYTES: unlimited; None: unknown."""
    if limit["swap_limit_bytes"] is not None:
        return limit["swap_limit_bytes"]
    memory, both = limit["limit_bytes"], limit["memsw_limit_bytes"]
    if memory is None or both is None:
        return None
    return NO_LIMIT_BYTES if both >= NO_LIMIT_BYTES or memory >= NO_LIMIT_BYTES else max(0, both - memory)


def is_limit_lowered(record: OomKill) -> bool:
    """Whether memory.max was set below the usage.  The kernel then reclaims, and kills for the writer
    (memory_max_write() in mm/memcontrol.c).  cgroup v1 rejects such a write.
    """
    limit = record["limit"]
    if limit is None or limit["memsw_limit_bytes"] is not None:
        return False
    usage, bound = limit["usage_bytes"], bound_bytes(limit)
    if usage is None or bound is None or usage <= bound:
        return False
    return _is_trigger_inside(record) is False or usage - bound > bound // _EXCESS_DIVISOR


def trigger_role(record: OomKill) -> TriggerRole | None:
    """The trigger's role; None: unknown, or there is none (SysRq)."""
    trigger, victim = record["trigger"], record["victim"]
    if trigger is None or record["incident"]["scope"] == "sysrq":
        return None
    if trigger["pid"] is None and trigger["tid"] is None and trigger["comm"] == victim["comm"]:
        return None  # a log without the line "CPU:": the victim, or another process of that name
    if trigger["tid"] == victim["tid"] or (trigger["pid"] is not None and trigger["pid"] == victim["pid"]):
        return "victim"
    is_inside = _is_trigger_inside(record)
    if is_limit_lowered(record):
        return "requester" if is_inside else "writer" if is_inside is False else None
    return "outsider" if is_inside is False else "requester"


def format_trigger(trigger: Trigger) -> str:
    """``sh (pid 7)``, or ``sh (thread 7)`` if the thread's process is unknown."""
    if trigger["pid"] is not None:
        return f"{trigger['comm']} (pid {trigger['pid']})"
    return trigger["comm"] if trigger["tid"] is None else f"{trigger['comm']} (thread {trigger['tid']})"


def _is_trigger_inside(record: OomKill) -> bool | None:
    """Whether the trigger is in the limit's cgroup or below it; None: unknown.

    A log shows it only if the table of tasks has the trigger's pid; threads are not in the table.
    """
    trigger, limit = record["trigger"], record["limit"]
    if trigger is None or limit is None or limit["cgroup"] is None:
        return None
    path = trigger["cgroup"]
    if path is None:
        listed = {each["pid"] for each in record["candidates"] or ()}
        return True if trigger["pid"] is not None and trigger["pid"] in listed else None
    if "trigger.cgroup" in record["truncated"] or "limit.cgroup" in record["truncated"]:
        return None
    return is_below(path, limit["cgroup"])


def is_allocating_task(record: OomKill) -> bool:
    """Whether vm.oom_kill_allocating_task chose the victim, according to the kernel's message."""
    return "oom_kill_allocating_task" in (record["incident"]["message"] or "")


def is_host_or_nodes(record: OomKill) -> bool:
    """Whether all that is known of the scope is that no memory cgroup's limit was hit.

    Before Linux 5.3 the log does not distinguish the host from the NUMA nodes of a cpuset or of a memory policy.
    Records of versions without the scope `host_or_nodes` have no scope in this case.
    """
    scope, message = record["incident"]["scope"], record["incident"]["message"]
    if scope is None:
        return message in ("Out of memory", "Out of memory (oom_kill_allocating_task)")
    return scope == "host_or_nodes"


def beancounter(record: OomKill) -> str | None:
    """Number of the OpenVZ beancounter (UB) that ran out of memory, which is the container's; None: there is none."""
    match = _IN_UB.fullmatch(record["incident"]["message"] or "")
    return None if match is None else match[1]


def chosen_candidate(record: OomKill) -> Candidate | None:
    """The candidate that the kernel chose; the other members of a group kill die with it."""
    candidates = record["candidates"]
    return candidates[0] if candidates else None


def page_bytes(record: OomKill) -> int | None:
    """The host's page size in bytes; None: unknown.

    The victim's score is its memory in pages plus oom_score_adj/1000 of all pages (oom_badness() in mm/oom_kill.c).  A
    log has no score, but all its sizes are whole pages.
    """
    if record["source"] == "kernel_log":
        return _common_page_bytes(record)
    victim, total = record["victim"], record["incident"]["total_pages"]
    points, rss, adjusted = victim["points"], victim["rss_bytes"], victim["oom_score_adj"]
    if points is None or rss is None or adjusted is None or (adjusted and total is None):
        return None
    pages = points - adjusted * ((total or 0) // 1000)
    size = rss + (victim["swap_bytes"] or 0) + (victim["page_tables_bytes"] or 0)
    if pages <= 0 or size <= 0:
        return None
    found = [each for each in _PAGE_SIZES if each / _ESTIMATE_RATIO < size / pages < each * _ESTIMATE_RATIO]
    return found[0] if found else None


def _common_page_bytes(record: OomKill) -> int | None:
    """The largest page size that divides all sizes, if there are enough of them to rule out chance."""
    victim = record["victim"]
    parts = (victim["anon_rss_bytes"], victim["file_rss_bytes"], victim["shmem_rss_bytes"], victim["total_vm_bytes"])
    sizes = {size for size in (*parts, *(each["rss_bytes"] for each in record["candidates"] or ())) if size}
    found = [page for page in _PAGE_SIZES if not any(size % page for size in sizes)]
    if not found or (found[-1] > _PAGE_SIZES[0] and len(sizes) < _SIZES_MIN):
        return None
    return found[-1]


def uptime_s(record: OomKill | Sigkill) -> float | None:
    """Time of the kill in seconds since boot, from the id of a kernel log's record; None for other records."""
    match = _UPTIME.match(record["id"]) if record["source"] == "kernel_log" else None
    return None if match is None else int(match[1], 16) / 1e6


def format_uptime(uptime_s: float) -> str:
    """``9.04 s after boot``, with the number that the log shows."""
    return f"{uptime_s:.2f} s after boot"
