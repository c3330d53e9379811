# SPDX-License-Identifier: Apache-2.0
"""Memory at the time of the kill, in words."""

from tracer.records.conclusions import page_bytes
from tracer.records.model import NO_LIMIT_BYTES, OomKill
from tracer.records.unix_time import unix_seconds
from tracer.why.advice import dominant_part
from tracer.why.memory import LimitMemory
from tracer.why.timestamps import format_span
from tracer.why.verdict import Verdict

_OTHERS_MAX = 3
_SMALL = 0.5


def describe_memory(verdict: Verdict) -> str | None:
    """What filled the limit, the victim's share, and larger processes."""
    memory, kill = verdict["memory"], verdict["kill"]
    if kill is None or kill["type"] != "oom_kill":
        return None
    text = [] if memory is None else [*filter(None, [_breakdown(memory), _swap(memory)])]
    choice = verdict["choice"]
    is_named = choice is not None and choice["by"] == "oom_score_adj"
    text += _resident(kill, memory, "" if is_named else _others(kill))
    if memory is None:
        text += filter(None, [_total(kill)])
    started, ended = unix_seconds(kill["victim"]["started_at"]), unix_seconds(kill["time"])
    if started is not None and ended is not None and ended >= started:
        text.append(f"It had run for {format_span(ended - started)}.")
    return " ".join(text) or None


def _resident(kill: OomKill, memory: LimitMemory | None, others: str) -> list[str]:
    """The victim's resident memory and share of the limit; if that is small, the largest other processes."""
    victim = kill["victim"]
    rss, swap, name = victim["rss_bytes"], victim["swap_bytes"], victim["comm"] or "The victim"
    if rss is None:
        return []
    had, swapped = f"{name} had {format_size(rss)} resident", f" and {format_size(swap)} in swap" if swap else ""
    bound = None if memory is None else memory["limit_bytes"] or memory["usage_bytes"]
    if memory is None or not bound:
        others = others if memory is None else ""
        return [f"{had}{swapped}."] + ([f"The largest others: {others}."] if others else [])
    if memory["is_lowered"]:
        return [f"{had}{swapped}."]
    share = f"{100 * rss // bound} % of the limit"
    if rss > bound:
        mapped = (victim["file_rss_bytes"] or 0) + (victim["shmem_rss_bytes"] or 0)
        elsewhere = rss - max(bound, memory["usage_bytes"] or 0) <= mapped
        share = "more than the limit" + (", as it maps files that are charged elsewhere" if elsewhere else "")
    text = [f"{had}, {share}{',' if swap else ''}{swapped}."]
    if rss < _SMALL * bound and dominant_part(memory) not in ("tmpfs", "cache", "kernel") and others:
        text.append(f"The largest others: {others}.")
    return text


def _breakdown(memory: LimitMemory) -> str | None:
    parts = memory["breakdown"]
    if parts is None:
        return "The memory under the limit is not on record by kind."
    shmem = parts["shmem_bytes"]
    cache = None if parts["file_bytes"] is None else max(0, parts["file_bytes"] - (shmem or 0))
    kernel = parts["kernel_bytes"] if parts["kernel_bytes"] is not None else parts["slab_bytes"]
    named = (
        (parts["anon_bytes"], "heap"), (cache, "page cache"), (shmem, "tmpfs and shared memory"), (kernel, "kernel"),
    )  # fmt: skip
    parts_text = [f"{format_size(count)} {name}" for count, name in named if count]
    if not parts_text:
        return None
    most = {"heap": "heap", "tmpfs": "tmpfs and shared memory", "cache": "page cache", "kernel": "kernel memory"}
    filled = dominant_part(memory)
    what = "What was in use" if memory["is_lowered"] else "What filled it"
    if sum(count for count, _ in named if count) < _SMALL * (memory["usage_bytes"] or 0):
        return f"{what} is known in part only: {', '.join(parts_text)}."
    return f"{what} was {'mostly ' + most[filled] if filled else 'a mixture'}: {', '.join(parts_text)}."


def _swap(memory: LimitMemory) -> str | None:
    """Swap in use and allowed: cgroup v2 limits swap itself, v1 memory+swap."""
    used, allowed = memory["swap_usage_bytes"], memory["swap_allowance_bytes"]
    if not used:
        return None
    if allowed is None or allowed >= NO_LIMIT_BYTES:
        return f"{format_size(used)} more were in swap."
    return f"{format_size(used)} more were in swap, of {format_size(allowed)} allowed."


def _total(kill: OomKill) -> str | None:
    """RAM and swap of the host or of the nodes."""
    pages, page = kill["incident"]["total_pages"], page_bytes(kill)
    if pages is None or page is None:
        return None
    of = "The host has" if kill["incident"]["scope"] in ("host", "sysrq") else "These nodes have"
    return f"{of} {format_size(pages * page)} of RAM and swap."


def _others(kill: OomKill) -> str:
    own = kill["victim"]["pid"]
    others = [each for each in kill["candidates"] or [] if each["pid"] != own and each["rss_bytes"]]
    others.sort(key=lambda each: -(each["rss_bytes"] or 0))
    return ", ".join(
        f"{each['comm']} (pid {each['pid']}) {format_size(each['rss_bytes'] or 0)}" for each in others[:_OTHERS_MAX]
    )


def format_size(count: int) -> str:
    """``64.0 MiB``."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
