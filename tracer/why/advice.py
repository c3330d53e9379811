# SPDX-License-Identifier: Apache-2.0
"""A verdict -> advice, with commands.

A higher limit is advised only if the figures support it: kills at regular intervals indicate a leak, and memory in
tmpfs or in the kernel is not the victim's.
"""

from typing import TypedDict

from tracer.base.clock import format_rfc3339
from tracer.base.printable import printable
from tracer.records.conclusions import beancounter
from tracer.records.matching import shown_container, shown_unit
from tracer.records.model import OomKill
from tracer.records.owner import Identity, Systemd, owner_of, user_manager_uid
from tracer.records.unix_time import unix_seconds
from tracer.why.cause import OOM
from tracer.why.killer import KillerKind
from tracer.why.limits import container_word, kubectl, limit_commands, limit_owner, shell_word
from tracer.why.memory import LimitMemory
from tracer.why.timestamps import format_span
from tracer.why.verdict import Verdict

_MIB = 1 << 20
_DOMINANT_SHARE = 0.5
"""A kind of memory that takes more than this share of the usage dominates it."""
_EVENTS_S = 10.0
"""A runtime reports a kill as an event within this time."""
_TOO_LOW_KILLS = 5
"""From this number of irregular kills on, the limit is too low for the load."""

_DAEMON_UNITS: dict[KillerKind, str] = {
    "systemd-oomd": "systemd-oomd",
    "oom_daemon": "earlyoom",
    "kubelet": "kubelet",
}


class Advice(TypedDict):
    text: str
    commands: list[str]


def advise(verdict: Verdict) -> list[Advice]:
    """Advice in the order in which to follow it."""
    kill, cause = verdict["kill"], verdict["cause"]
    if kill is not None and kill["type"] == "oom_kill" and cause in OOM:
        return _for_oom(verdict, kill)
    if verdict["killer"] is not None:
        return [_for_killer(verdict["killer"], verdict)]
    if cause in ("exited", "not_oom"):
        text = "Look at its own log"
        if cause == "not_oom":
            text += "; run oomtrace to record the senders of further SIGKILLs to containers"
        return [{"text": f"{text}.", "commands": _log_commands(verdict)}]
    if cause == "unknown":
        return [{"text": "Run oomtrace, which records the next one.", "commands": ["oomtrace run"]}]
    return []


def _for_oom(verdict: Verdict, kill: OomKill) -> list[Advice]:
    memory, cause, choice = verdict["memory"], verdict["cause"], verdict["choice"]
    if cause == "sysrq":
        return [{"text": "Find out who pressed SysRq-f or wrote f to /proc/sysrq-trigger.", "commands": []}]
    if memory is None or memory["cgroup"] is None:
        task: list[Advice] = []
        if choice is not None and choice["by"] == "allocating_task":
            text = (
                "To have the kernel kill the process with the highest score instead, switch "
                "oom_kill_allocating_task off."
            )
            task.append({"text": text, "commands": ["sysctl -w vm.oom_kill_allocating_task=0"]})
        return [*_for_no_limit(verdict, kill), *task]
    if memory["is_lowered"]:
        return _for_lowered(verdict, kill, memory)
    filled = dominant_part(memory)
    if filled == "tmpfs":
        text = (
            "Look at files in tmpfs (/dev/shm, /tmp, emptyDir with medium Memory) and at shared memory first: they "
            "stay when the process dies."
        )
        return [{"text": text, "commands": _tmpfs_commands(kill)}, *_for_raising(verdict, kill, memory)]
    if filled == "kernel":
        text = "Look at kernel memory: sockets, open files, dentries; no process's heap is the cause."
        return [{"text": text, "commands": ["slabtop --once"]}, *_for_raising(verdict, kill, memory)]
    watch_growth: Advice = {"text": "Watch what grows in it.", "commands": [_top_command(verdict, kill)]}
    pause_s = verdict["history"]["pause_s"]
    if verdict["history"]["regular"] and pause_s is not None:
        whom = printable(kill["victim"]["comm"] or "the victim")
        text = (
            f"Look for a leak in {whom}: it fills the same limit every {format_span(pause_s)} or so. A higher limit "
            "only delays the next kill."
        )
        return [{"text": text, "commands": watch_growth["commands"]}]
    raised, rss = _for_raising(verdict, kill, memory), memory["victim_rss_bytes"]
    if choice is not None and choice["by"] == "oom_score_adj" and choice["other"] is not None:
        text = (
            f"See what grows in {printable(choice['other']['comm'])} (pid {choice['other']['pid']}) first: it had at "
            "least the victim's memory, but the victim had the higher oom_score_adj."
        )
        return [{"text": text, "commands": watch_growth["commands"]}, *raised]
    limit = memory["limit_bytes"]
    if rss is not None and limit is not None and rss < _DOMINANT_SHARE * limit and filled is None:
        text = "See what fills it first, as the victim had little of it: other processes, or files in tmpfs."
        return [{"text": text, "commands": [*watch_growth["commands"], *_tmpfs_commands(kill)]}, *raised]
    return [*raised, watch_growth]


def _for_no_limit(verdict: Verdict, kill: OomKill) -> list[Advice]:
    """Advice if no limit was hit, or an unknown one."""
    cause = verdict["cause"]
    if cause == "some_limit":
        text = (
            "Find the cgroup whose limit was hit: its memory.events.local counts that (oom; cgroup v1: memory.failcnt) "
            "as long as it exists. More memory for the host does not help."
        )
        command = "grep -rs 'oom [1-9]' /sys/fs/cgroup --include=memory.events.local"
        return [{"text": text, "commands": [command]}]
    if cause == "nodes":
        give = {
            "cpuset": "allow the cgroup more nodes in cpuset.mems (docker run --cpuset-mems)",
            "mempolicy": "bind the process to more nodes (numactl --membind)",
        }.get(kill["incident"]["scope"] or "", "allow more nodes")
        text = (
            f"See which nodes are full: {give}, or start fewer processes on these. Memory that other nodes have does "
            "not help."
        )
        return [{"text": text, "commands": ["grep MemFree /sys/devices/system/node/node*/meminfo"]}]
    if (number := beancounter(kill)) is not None:
        text = f"See what runs in container {number}; vzctl or prlctl sets its memory."
        return [{"text": text, "commands": []}]
    text = "See which processes have the memory now."
    if cause == "host":
        text += " Give the largest a limit of its own, or the host more memory."
    elif cause == "host_or_nodes":
        text += " Give the largest a limit of its own; give the host more memory unless only some nodes were allowed."
    return [{"text": text, "commands": ["oomtrace top --sort rss", "oomtrace top --sort oom"]}]


def _for_lowered(verdict: Verdict, kill: OomKill, memory: LimitMemory) -> list[Advice]:
    usage, limit = memory["usage_bytes"] or 0, memory["limit_bytes"] or 0
    who = (
        f"Find out what lowered the limit to {limit // _MIB} MiB: an autoscaler, docker update, systemctl, a script. "
        "memory.high below the usage does not kill; it reclaims and slows down."
    )
    new_mib = -(-usage * 5 // 4 // _MIB)
    where, commands = limit_commands(kill, memory, new_mib)
    text = f"If it needs the {usage // _MIB} MiB that were in use, raise the limit to {new_mib} MiB."
    return [{"text": who, "commands": []}, {"text": f"{text}{where and ' '}{where}", "commands": commands}]


def dominant_part(memory: LimitMemory) -> str | None:
    """The kind of memory that most of the usage is: heap, tmpfs, cache or kernel; None: unknown, or none of them."""
    parts, usage = memory["breakdown"], memory["usage_bytes"] or memory["limit_bytes"]
    if parts is None or not usage:
        return None
    shmem = parts["shmem_bytes"] or 0
    sizes = {
        "heap": parts["anon_bytes"],
        "tmpfs": parts["shmem_bytes"],
        "cache": None if parts["file_bytes"] is None else parts["file_bytes"] - shmem,
        "kernel": parts["kernel_bytes"] if parts["kernel_bytes"] is not None else parts["slab_bytes"],
    }
    return next((name for name, size in sizes.items() if size is not None and size > _DOMINANT_SHARE * usage), None)


def _for_raising(verdict: Verdict, kill: OomKill, memory: LimitMemory) -> list[Advice]:
    """Raise the limit by a quarter: a first attempt, because the peak demand is unknown."""
    limit = memory["limit_bytes"]
    if limit is None:
        return []
    new_mib = -(-limit * 5 // 4 // _MIB)
    is_own, kind = verdict["cause"] == "own_limit", verdict["kind"]
    of = f" of {printable(memory['cgroup'] or '')}"
    if is_own:
        of = f" of its {printable(limit_owner(kill, memory))}" if kind in ("pid", "process") else ""
    times = verdict["history"]["total"]
    often = f", as it was too low {times} times" if times >= _TOO_LOW_KILLS else ""
    where, commands = limit_commands(kill, memory, new_mib)
    text = (
        f"If it needs that much, raise the limit{of} from {limit // _MIB} to {new_mib} MiB{often}; the peak "
        "demand is unknown, so check again afterwards."
    )
    return [{"text": f"{text}{where and ' '}{where}", "commands": commands}]


def _for_killer(killer: KillerKind, verdict: Verdict) -> Advice:
    """Advice for a SIGKILL that the OOM killer did not send."""
    kill = verdict["kill"]
    victim = owner_of(kill) if kill is not None else Identity(None, None, None)
    if killer == "runtime":
        return _for_runtime(victim, verdict["time"])
    if killer in _DAEMON_UNITS:
        since = f"{(verdict['time'] or '')[:19].replace('T', ' ')} UTC"
        commands = [f"journalctl -u {_DAEMON_UNITS[killer]} --since '{since}'"]
        return {"text": "It acts before the kernel's OOM killer: see its log.", "commands": commands}
    if killer == "systemd":
        return _for_systemd(victim.systemd)
    sender = kill["sender"] if kill is not None and kill["type"] == "sigkill" else None
    if sender is None:
        return {"text": "Look at its parent processes.", "commands": []}
    systemd = owner_of(sender).systemd
    unit = systemd["unit"] if systemd is not None else None
    return {
        "text": "Look at the sender.",
        "commands": [] if unit is None else [f"journalctl -u {shell_word(unit)}"],
    }


def _for_runtime(victim: Identity, time: str | None) -> Advice:
    """Advice for a SIGKILL by a container runtime."""
    container, pod = victim.container, victim.kubernetes
    if pod is not None and pod["pod_name"] is not None:
        return {
            "text": "Ask Kubernetes why: a failed probe, an eviction, a deleted pod.",
            "commands": kubectl("describe pod", pod["pod_name"], pod["namespace"]),
        }
    commands = []
    at = unix_seconds(time)
    if at is not None and container is not None and container["runtime"] in ("docker", "podman"):
        # Not the time of the kill: docker takes that for the beginning of this second, and shows no event within it.
        until = format_rfc3339(int((at + _EVENTS_S) * 1e9))[:19] + "Z"
        span = f"--since {(time or '')[:19]}Z --until {until}"
        commands = [f"{container['runtime']} events {span} --filter container={shell_word(container['id'][:12])}"]
    return {"text": "Find out who requested that of the runtime.", "commands": commands}


def _for_systemd(victim: Systemd | None) -> Advice:
    """Advice for a SIGKILL by systemd."""
    unit = victim["unit"] if victim is not None else None
    commands = []
    if unit is not None:
        commands = [f"journalctl -u {shell_word(unit)}", f"systemctl show -p TimeoutStopUSec {shell_word(unit)}"]
    return {"text": "See why the unit was stopped, and whether it needs more time to stop.", "commands": commands}


def _log_commands(verdict: Verdict) -> list[str]:
    name, runtime = verdict["name"], verdict["runtime"]
    program = runtime["runtime"] if runtime is not None else None
    if verdict["kind"] == "container" and program in ("docker", "podman") and not name.startswith("-"):
        return [f"{program} logs --tail 50 {shell_word(name)}"]
    if verdict["kind"] == "pod":
        namespace, _, pod = name.rpartition("/")
        return kubectl("logs --previous", pod, namespace or None)
    return [f"journalctl -u {shell_word(name)} -n 50"] if verdict["kind"] == "unit" else []


def _tmpfs_commands(kill: OomKill) -> list[str]:
    owner = owner_of(kill)
    container = owner.container or (kill["container"] if user_manager_uid(owner) is not None else None)
    if container is None or container["runtime"] not in ("docker", "podman"):
        return ["df -h -t tmpfs", "ipcs -m"]
    return [f"{container['runtime']} exec {container_word(container)} df -h"]


def _top_command(verdict: Verdict, kill: OomKill) -> str:
    container, unit = shown_container(kill), shown_unit(kill)
    if container is not None:
        return f"oomtrace top --container {shell_word(container)}"
    if unit is not None:
        return f"oomtrace top --unit {shell_word(unit)}"
    return "oomtrace top"
