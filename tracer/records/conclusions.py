# SPDX-License-Identifier: Apache-2.0
"""What follows from an oom_kill record beyond its fields, for every command that puts it into words."""

import re
from typing import Literal

from tracer.records.matching import is_below
from tracer.records.model import NO_LIMIT_BYTES, Candidate, Limit, OomKill, Sigkill, Trigger

LOG_CANDIDATES = 10
"""A record of a log has so many candidates at most, the largest; with fewer it has all."""
_LOWERED_PART = 8
"""Usage that exceeds the limit by this part: no charge goes that far, as it fails at the limit. Smaller excess may be
concurrent charges, or those that the kernel does not let fail (__GFP_NOFAIL, sockets)."""
_PAGE_SIZES = (4096, 16384, 65536)
_NEAREST = 1.5
"""So far a quotient may be from a page size, which differ by 4: the victim grows between its score and its kill."""
_ENOUGH_SIZES = 8
"""Of sizes in pages of 4 KiB one in four is a multiple of 16 KiB."""
_UPTIME = re.compile(r"[^-]*-k([0-9a-f]{1,15})(?:-|\Z)")
"""The id of a kernel log's record, whose time is that since boot, in microseconds."""
_IN_UB = re.compile(r"Out of memory in UB (\d{1,10})")

TriggerRole = Literal["victim", "requester", "outsider", "writer"]
"""Who the kernel ran for: the victim itself; another that requested memory; one that requested it from outside of the
limit's cgroup; one outside that lowered the limit."""


def bound_bytes(limit: Limit) -> int | None:
    """The limit that was hit: of memory, or of memory and swap (cgroup v1) where only that is limited."""
    for bound in (limit["limit_bytes"], limit["memsw_limit_bytes"]):
        if bound is not None and bound < NO_LIMIT_BYTES:
            return bound
    return None


def swap_allowance_bytes(limit: Limit) -> int | None:
    """How much swap the limit allows; NO_LIMIT_BYTES: any, None: unknown."""
    if limit["swap_limit_bytes"] is not None:
        return limit["swap_limit_bytes"]
    memory, both = limit["limit_bytes"], limit["memsw_limit_bytes"]
    if memory is None or both is None:
        return None
    return NO_LIMIT_BYTES if both >= NO_LIMIT_BYTES or memory >= NO_LIMIT_BYTES else max(0, both - memory)


def is_limit_lowered(record: OomKill) -> bool:
    """Whether memory.max was written below the usage: the kernel then reclaims and kills for the writer
    (memory_max_write() in mm/memcontrol.c). cgroup v1 refuses such a write.
    """
    limit = record["limit"]
    if limit is None or limit["memsw_limit_bytes"] is not None:
        return False
    usage, bound = limit["usage_bytes"], bound_bytes(limit)
    if usage is None or bound is None or usage <= bound:
        return False
    return _is_trigger_inside(record) is False or usage - bound > bound // _LOWERED_PART


def trigger_role(record: OomKill) -> TriggerRole | None:
    """None: unknown, or nobody requested anything (SysRq)."""
    trigger, victim = record["trigger"], record["victim"]
    if trigger is None or record["incident"]["scope"] == "sysrq":
        return None
    if trigger["pid"] is None and trigger["tid"] is None and trigger["comm"] == victim["comm"]:
        return None  # a log that lacks the line "CPU:": the victim, or another of that name
    if trigger["tid"] == victim["tid"] or (trigger["pid"] is not None and trigger["pid"] == victim["pid"]):
        return "victim"
    is_inside = _is_trigger_inside(record)
    if is_limit_lowered(record):
        return "requester" if is_inside else "writer" if is_inside is False else None
    return "outsider" if is_inside is False else "requester"


def format_trigger(trigger: Trigger) -> str:
    """``sh (pid 7)``; of a thread whose process is unknown ``sh (thread 7)``."""
    if trigger["pid"] is not None:
        return f"{trigger['comm']} (pid {trigger['pid']})"
    return trigger["comm"] if trigger["tid"] is None else f"{trigger['comm']} (thread {trigger['tid']})"


def _is_trigger_inside(record: OomKill) -> bool | None:
    """Whether the trigger is in the limit's cgroup or below; None: unknown.

    A log gives it away only where its pid is in the table: threads are not listed there.
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
    """Whether vm.oom_kill_allocating_task chose the victim: the kernel's message says so."""
    return "oom_kill_allocating_task" in (record["incident"]["message"] or "")


def is_host_or_nodes(record: OomKill) -> bool:
    """Whether the kernel says that no memory cgroup's limit was hit, where it says no more.

    Before Linux 5.3 its log does not tell the host from the memory nodes of a cpuset or of a policy; records that
    oomtrace wrote before it had `host_or_nodes` have no scope then.
    """
    scope, message = record["incident"]["scope"], record["incident"]["message"]
    if scope is None:
        return message in ("Out of memory", "Out of memory (oom_kill_allocating_task)")
    return scope == "host_or_nodes"


def beancounter(record: OomKill) -> str | None:
    """Of OpenVZ's kernels the beancounter that had no memory left; it has the number of a container."""
    match = _IN_UB.fullmatch(record["incident"]["message"] or "")
    return None if match is None else match[1]


def chosen_candidate(record: OomKill) -> Candidate | None:
    """The candidate that the kernel chose; of a group kill the others die with it."""
    candidates = record["candidates"]
    return candidates[0] if candidates else None


def page_bytes(record: OomKill) -> int | None:
    """The host's page size: the victim's score is its memory in pages, and oom_score_adj's part of all of them.

    A log has no score, but all sizes in it are of whole pages.
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
    found = [each for each in _PAGE_SIZES if each / _NEAREST < size / pages < each * _NEAREST]
    return found[0] if found else None


def _common_page_bytes(record: OomKill) -> int | None:
    """The largest page size of which all sizes are multiples, if they are so many that this is no chance."""
    victim = record["victim"]
    parts = (victim["anon_rss_bytes"], victim["file_rss_bytes"], victim["shmem_rss_bytes"], victim["total_vm_bytes"])
    sizes = {size for size in (*parts, *(each["rss_bytes"] for each in record["candidates"] or ())) if size}
    found = [page for page in _PAGE_SIZES if not any(size % page for size in sizes)]
    if not found or (found[-1] > _PAGE_SIZES[0] and len(sizes) < _ENOUGH_SIZES):
        return None
    return found[-1]


def uptime_s(record: OomKill | Sigkill) -> float | None:
    """When it was, in seconds since boot, of a record of a kernel log that tells nothing else."""
    match = _UPTIME.match(record["id"]) if record["source"] == "kernel_log" else None
    return None if match is None else int(match[1], 16) / 1e6


def format_uptime(uptime_s: float) -> str:
    """``9.04 s after boot``: the number is that in the log."""
    return f"{uptime_s:.2f} s after boot"
