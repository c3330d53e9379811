# SPDX-License-Identifier: Apache-2.0
"""A verdict -> what to do, with the commands for it.

A higher limit is advised only where the figures speak for it: what comes as regularly as a clock is a leak, and what
lies in tmpfs or in the kernel is not the victim's.
"""

from typing import TypedDict

from tracer.base.clock import format_rfc3339
from tracer.base.printable import printable
from tracer.records.conclusions import beancounter
from tracer.records.matching import shown_container, shown_unit
from tracer.records.model import OomKill
from tracer.records.owner import Identity, owner_of, user_manager_uid
from tracer.why.cause import OOM
from tracer.why.killer import KillerKind
from tracer.why.limits import container_word, kubectl, limit_commands, limit_owner, shell_word
from tracer.why.memory import LimitMemory
from tracer.why.timestamps import format_span, unix_seconds
from tracer.why.verdict import Verdict

_MIB = 1 << 20
_MOST = 0.5
"""What is more than this part of the limit fills it."""
_EVENTS_S = 10.0
"""What a runtime says of a kill it says within this time."""
_LEAST_COUNT = 5
"""So many kills without a rule show a limit that is too low for what is done under it, or peaks that have none."""


class Advice(TypedDict):
    text: str
    commands: list[str]


def advise(verdict: Verdict) -> list[Advice]:
    """In the order in which to do it."""
    kill, cause = verdict["kill"], verdict["cause"]
    if kill is not None and kill["type"] == "oom_kill" and cause in OOM:
        return _for_oom(verdict, kill)
    if verdict["killer"] is not None:
        return [_for_killer(verdict["killer"], verdict)]
    if cause in ("exited", "not_oom"):
        text = "Look at what it said itself"
        if cause == "not_oom":
            text += "; to know of the next SIGKILL who sent it, let oomtrace run, which records those to containers"
        return [{"text": f"{text}.", "commands": _logs(verdict)}]
    if cause == "unknown":
        return [{"text": "Let oomtrace run: it records the next one.", "commands": ["oomtrace run"]}]
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
        return [{"text": text, "commands": _tmpfs(kill)}, *_raise(verdict, kill, memory)]
    if filled == "kernel":
        text = "Look at what the kernel keeps for it: sockets, open files, dentries; no process's heap is to blame."
        return [{"text": text, "commands": ["slabtop --once"]}, *_raise(verdict, kill, memory)]
    look: Advice = {"text": "See what grows in it, while it grows.", "commands": [_top(verdict, kill)]}
    pause_s = verdict["history"]["pause_s"]
    if verdict["history"]["regular"] and pause_s is not None:
        whom = printable(kill["victim"]["comm"] or "the victim")
        text = (
            f"Look for a leak in {whom}: it fills the same limit every {format_span(pause_s)} or so. A higher limit "
            "does not cure that, it only makes the next kill come later."
        )
        return [{"text": text, "commands": look["commands"]}]
    raised, rss = _raise(verdict, kill, memory), memory["victim_rss_bytes"]
    if choice is not None and choice["by"] == "oom_score_adj" and choice["other"] is not None:
        text = (
            f"See what grows in {printable(choice['other']['comm'])} (pid {choice['other']['pid']}) first: it had no "
            "less than the victim, which was chosen for its oom_score_adj."
        )
        return [{"text": text, "commands": look["commands"]}, *raised]
    if rss is not None and memory["limit_bytes"] is not None and rss < _MOST * memory["limit_bytes"] and filled is None:
        text = "See what fills it first, as the victim had little of it: other processes, or files in tmpfs."
        return [{"text": text, "commands": [*look["commands"], *_tmpfs(kill)]}, *raised]
    return [*raised, look]


def _for_no_limit(verdict: Verdict, kill: OomKill) -> list[Advice]:
    """Where no limit was hit, or it is unknown which."""
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
        text = f"See which nodes are full: {give}, or start less on these. Memory that other nodes have does not help."
        return [{"text": text, "commands": ["grep MemFree /sys/devices/system/node/node*/meminfo"]}]
    if (number := beancounter(kill)) is not None:
        text = f"See what runs in container {number}; vzctl or prlctl sets its memory."
        return [{"text": text, "commands": []}]
    text = "See who has the memory now."
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
    new = -(-usage * 5 // 4 // _MIB)
    where, commands = limit_commands(kill, memory, new)
    text = f"If it rightly needs the {usage // _MIB} MiB that were in use, raise the limit to {new} MiB."
    return [{"text": who, "commands": []}, {"text": f"{text}{where and ' '}{where}", "commands": commands}]


def dominant_part(memory: LimitMemory) -> str | None:
    """What most of the limit is: heap, tmpfs, cache or kernel; None: not known, or a mixture."""
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
    return next((name for name, size in sizes.items() if size is not None and size > _MOST * usage), None)


def _raise(verdict: Verdict, kill: OomKill, memory: LimitMemory) -> list[Advice]:
    """To a quarter more, which is an attempt: how much it needs beyond the limit is unknown."""
    limit = memory["limit_bytes"]
    if limit is None:
        return []
    new = -(-limit * 5 // 4 // _MIB)
    is_own, kind = verdict["cause"] == "own_limit", verdict["kind"]
    whose = f" of {printable(memory['cgroup'] or '')}"
    if is_own:
        whose = f" of its {printable(limit_owner(kill, memory))}" if kind in ("pid", "process") else ""
    times = verdict["history"]["total"]
    often = f", as it was too low {times} times" if times >= _LEAST_COUNT else ""
    where, commands = limit_commands(kill, memory, new)
    text = (
        f"If it rightly needs that much, raise the limit{whose} from {limit // _MIB} to {new} MiB{often}; the peak "
        "demand is unknown, so look again then."
    )
    return [{"text": f"{text}{where and ' '}{where}", "commands": commands}]


def _for_killer(who: KillerKind, verdict: Verdict) -> Advice:
    kill, when = verdict["kill"], (verdict["time"] or "")[:19] + "Z"
    victims = owner_of(kill) if kill is not None else Identity(None, None, None)
    container, kubernetes = victims.container, victims.kubernetes
    if who == "runtime" and kubernetes is not None and kubernetes["pod_name"] is not None:
        return {
            "text": "Ask Kubernetes why: a probe that failed, an eviction, a pod that was deleted.",
            "commands": kubectl("describe pod", kubernetes["pod_name"], kubernetes["namespace"]),
        }
    if who == "runtime":
        commands = []
        at = unix_seconds(verdict["time"])
        if at is not None and container is not None and container["runtime"] in ("docker", "podman"):
            # Not 0s: docker takes that for the begin of this second, and shows nothing of a kill within it.
            until = format_rfc3339(int((at + _EVENTS_S) * 1e9))[:19] + "Z"
            of = f"--filter container={shell_word(container['id'][:12])}"
            commands = [f"{container['runtime']} events --since {when} --until {until} {of}"]
        return {"text": "Ask the runtime who had it do that.", "commands": commands}
    units = {"systemd-oomd": "systemd-oomd", "oom_daemon": "earlyoom", "kubelet": "kubelet"}
    if who in units:
        commands = [f"journalctl -u {units[who]} --since '{when[:19].replace('T', ' ')} UTC'"]
        return {"text": "It acts before the kernel has to: see in its log what it saw.", "commands": commands}
    sender = kill["sender"] if kill is not None and kill["type"] == "sigkill" else None
    if who == "systemd":
        unit = victims.systemd["unit"] if victims.systemd is not None else None
        commands = (
            []
            if unit is None
            else [f"journalctl -u {shell_word(unit)}", f"systemctl show -p TimeoutStopUSec {shell_word(unit)}"]
        )
        return {
            "text": "See why the unit was stopped, and whether it needs longer to end by itself.",
            "commands": commands,
        }
    senders = owner_of(sender).systemd if sender is not None else None
    if senders is not None and senders["unit"] is not None:
        return {"text": "Look at who sent it.", "commands": [f"journalctl -u {shell_word(senders['unit'])}"]}
    return {"text": "Look at who sent it." if sender is not None else "Look at what its parents did.", "commands": []}


def _logs(verdict: Verdict) -> list[str]:
    name, runtime = verdict["name"], verdict["runtime"]
    program = runtime["runtime"] if runtime is not None else None
    if verdict["kind"] == "container" and program in ("docker", "podman") and not name.startswith("-"):
        return [f"{program} logs --tail 50 {shell_word(name)}"]
    if verdict["kind"] == "pod":
        namespace, _, pod = name.rpartition("/")
        return kubectl("logs --previous", pod, namespace or None)
    return [f"journalctl -u {shell_word(name)} -n 50"] if verdict["kind"] == "unit" else []


def _tmpfs(kill: OomKill) -> list[str]:
    owner = owner_of(kill)
    container = owner.container or (kill["container"] if user_manager_uid(owner) is not None else None)
    if container is None or container["runtime"] not in ("docker", "podman"):
        return ["df -h -t tmpfs", "ipcs -m"]
    return [f"{container['runtime']} exec {container_word(container)} df -h"]


def _top(verdict: Verdict, kill: OomKill) -> str:
    container, unit = shown_container(kill), shown_unit(kill)
    if container is not None:
        return f"oomtrace top --container {shell_word(container)}"
    if unit is not None:
        return f"oomtrace top --unit {shell_word(unit)}"
    return "oomtrace top"
