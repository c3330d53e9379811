# SPDX-License-Identifier: Apache-2.0
"""Describes a record in one sentence."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from tracer.base.printable import printable
from tracer.records.conclusions import (
    beancounter,
    bound_bytes,
    is_allocating_task,
    is_host_or_nodes,
    is_limit_lowered,
    trigger_role,
)
from tracer.records.matching import shown_container, shown_unit
from tracer.records.model import OomKill

_HOST_OR_NODES = "because the host, or the memory nodes that were allowed, had no memory left"


def describe_kill(record: OomKill) -> str:
    """The sentence for an ``oom_kill`` record: victim, size, limit, requester."""
    victim = record["victim"]
    who = f"{victim['comm'] or 'a process'} (pid {victim['pid'] or victim['tid']}{_place(record)})"
    size = f", {_size(victim['rss_bytes'])} resident," if victim["rss_bytes"] is not None else ""
    return f"The kernel killed {who}{size} {_group(record)}{_why(record)}."


def _group(record: OomKill) -> str:
    return "with its whole cgroup (memory.oom.group), " if record["incident"]["group_kill"] else ""


def _why(record: OomKill) -> str:
    """What ran out of memory, and who requested it."""
    limit, role = record["limit"], trigger_role(record)
    if limit is not None:
        bound = bound_bytes(limit)
        of = "" if bound is None else f" of {_size(bound)}"
        level = "" if limit["level"] == "other" else f"{limit['level']} "
        cgroup = "a memory cgroup" if limit["cgroup"] is None else f"the {level}cgroup {limit['cgroup']}"
        if is_limit_lowered(record):
            by = f" by {_requester(record)}" if role == "writer" else ""
            usage = _size(limit["usage_bytes"] or 0)
            return f"because the limit of {cgroup} was lowered{by} to {_size(bound or 0)} while {usage} were in use"
        why = f"because {cgroup} was at its limit{of}"
    else:
        why = {
            "host": "because the host had no memory left",
            "cpuset": "because the memory nodes of a cpuset had no memory left",
            "mempolicy": "because the memory nodes of a memory policy had no memory left",
            "host_or_nodes": _HOST_OR_NODES,
            "sysrq": "because SysRq-f requested it",
            "memcg": "because a memory cgroup was at its limit",
            None: "because memory ran out; the limit is unknown",
        }[record["incident"]["scope"]]
        if (number := beancounter(record)) is not None:
            why = f"because the beancounter (UB) {number} had no memory left"
        elif is_host_or_nodes(record):
            why = _HOST_OR_NODES
    if role is None:
        return why
    forced = "; vm.oom_kill_allocating_task is set" if is_allocating_task(record) else ""
    return f"{why} when {_requester(record)} requested more memory{forced}"


def _requester(record: OomKill) -> str:
    trigger = record["trigger"]
    if trigger is None or trigger_role(record) == "victim":
        return "it"
    return trigger["comm"] + ("" if trigger["pid"] is None else f" (pid {trigger['pid']})")


def summarize(record: Mapping[str, Any]) -> str:
    """The sentence for a record of any type and version; printable, one line."""
    kind = str(record.get("type"))
    try:
        return printable(_SENTENCES[kind](record))
    except (KeyError, TypeError, ValueError, AttributeError):
        return printable(f"oomtrace: a record of type {kind}.")


def _place(record: Mapping[str, Any]) -> str:
    container = shown_container(record)
    place = shown_unit(record) if container is None else f"container {container}"
    return "" if place is None else f", {place}"


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 10240:
            return f"{count} {unit}"
        count //= 1024
    return f"{count} GiB"


def _oom_exit(record: Mapping[str, Any]) -> str:
    after_ms = record["after_ns"] / 1e6
    fate = {True: "; its container ended with it", False: "; its container continues"}.get(
        record["container_init_died"], ""
    )
    return f"The killed process {record['pid']} exited after {after_ms:.0f} ms{fate}."


def _sigkill(record: Mapping[str, Any]) -> str:
    victim, sender = record["victim"], record["sender"]
    nobody = "an unknown sender" if record.get("from_kernel", True) is None else "the kernel"
    by = f"{sender['comm']} (pid {sender['pid']}, uid {sender['uid']})" if sender else nobody
    return f"{victim['comm']} (pid {victim['pid']}{_place(record)}) was killed by SIGKILL from {by}."


def _gap(record: Mapping[str, Any]) -> str:
    since = f"since {record['since']}" if record["since"] else "since boot"
    return f"{record['missing']} OOM kills {since} have no record; the kernel counts {record['oom_kills']}."


def _lost(record: Mapping[str, Any]) -> str:
    return f"{record['count']} events were lost since {record['since']} ({record['stage']})."


def _start(record: Mapping[str, Any]) -> str:
    return f"oomtrace {record['version']} is attached ({record['source']}): OOM kills from now on are recorded."


def _stop(record: Mapping[str, Any]) -> str:
    return f"oomtrace stopped; this run recorded {record['records']} OOM kills."


_SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "oom_kill": lambda record: describe_kill(cast(OomKill, record)),
    "oom_exit": _oom_exit,
    "sigkill": _sigkill,
    "gap": _gap,
    "lost": _lost,
    "start": _start,
    "stop": _stop,
}
