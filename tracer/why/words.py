# SPDX-License-Identifier: Apache-2.0
"""A verdict -> sentences; each says what is known, and nothing else."""

from tracer.base.printable import printable
from tracer.records.conclusions import beancounter, format_trigger, trigger_role
from tracer.records.matching import shown_container, shown_unit
from tracer.records.model import OomKill
from tracer.records.owner import owner_of
from tracer.why.cause import OOM
from tracer.why.choice import VictimChoice
from tracer.why.killer import KillerKind
from tracer.why.limits import limit_owner
from tracer.why.timestamps import at_moment, format_span, format_time
from tracer.why.usage import describe_memory, format_size
from tracer.why.verdict import SIGKILLED, RuntimeStatus, Verdict

_WHY_KILLERS: dict[KillerKind, str] = {
    "kernel": "The kernel sent it, for a reason other than memory: the init of its PID namespace ended, a CPU time "
    "limit was hit, or a seccomp filter acted.",
    "inside": "It came from inside the same container.",
    "container": "It came from another container.",
    "systemd-oomd": "systemd-oomd acts when a cgroup is under memory pressure, before the kernel's OOM killer has to.",
    "oom_daemon": "That is a daemon that kills before the host runs out of memory.",
    "kubelet": "The kubelet sent it: an eviction, a failed probe, or a deleted pod.",
    "runtime": "A container runtime sends it on request: a kill command, a stop that timed out (10 s for docker stop), "
    "or the kubelet.",
    "systemd": "systemd sends it for systemctl kill, and if a stop takes longer than TimeoutStopSec.",
    "shell": "It was sent by a command or a script.",
    "other": "",
}
_ITS_OWN = "its own limit"
_SIGNALS = {129: "SIGHUP", 130: "SIGINT", 131: "SIGQUIT", 134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE", 139: "SIGSEGV",
            141: "SIGPIPE", 143: "SIGTERM"}  # fmt: skip


def explain_verdict(verdict: Verdict) -> list[str]:
    """Paragraphs: what happened, and why this process; memory; history; the runtime's status; what is unknown."""
    parts = [_what(verdict), describe_memory(verdict), _often(verdict), _runtime(verdict), _unknown(verdict)]
    return [printable(part) for part in parts if part]


def _what(verdict: Verdict) -> str:
    who = f"{_KINDS[verdict['kind']]} {verdict['name']}{_where(verdict)}"
    when = at_moment(verdict["time"], verdict["uptime_s"])
    kill, cause, code = verdict["kill"], verdict["cause"], verdict["exit_code"]
    if kill is not None and kill["type"] == "oom_kill":
        return f"{_verb(verdict, who)} {when}, {_limit(verdict, kill)}. {_victim(verdict, kill)}"
    if kill is not None:
        sender, victim = kill["sender"], kill["victim"]
        whom = "" if verdict["kind"] in ("pid", "process") else f" to {victim['comm']} (pid {victim['pid']})"
        what = f"{who} was killed {when} with SIGKILL{whom}, and not by the OOM killer."
        if verdict["ended"] is False:
            what = f"In {who[0].lower()}{who[1:]} {victim['comm']} (pid {victim['pid']}) was killed {when} with SIGKILL"
            what += ", and not by the OOM killer."
        if sender is not None:
            what += f" {sender['comm']} (pid {sender['pid']}{_place_of_sender(sender)}) sent it."
        return f"{what} {_WHY_KILLERS[verdict['killer'] or 'other']}".rstrip()
    if cause == "running":
        return f"{who} is running, and no kill of it is on record."
    ended = f"{who} ended {when}" if verdict["time"] is not None else f"{who} ended"
    if cause == "exited" and code == SIGKILLED:
        return (
            f"{ended} and was not killed: no kill of it is on record, so it exited with {code} by itself, like a "
            "shell whose command was killed."
        )
    if cause == "exited" and code in _SIGNALS:
        signal = f"{_SIGNALS[code]}, 128 + {code - 128}"
        return f"{ended} and was not killed by SIGKILL: exit code {code} is that of {signal}."
    if cause == "exited":
        return f"{ended} and was not killed: it exited with {code} by itself; after SIGKILL it would be {SIGKILLED}."
    if cause == "not_oom":
        return (
            f"{ended} with exit code {code}, and it was not the OOM killer, whose kills are on record. {code} is the "
            "exit code of SIGKILL, or the program's own; other SIGKILLs are not on record."
        )
    with_code = "" if code is None else f" with exit code {code}"
    return f"{ended}{with_code}, and the cause is unknown: kills were not recorded then."


def _where(verdict: Verdict) -> str:
    """The pod of a container, or the container or unit of a process, whose name alone may be ambiguous."""
    kill, kind = verdict["kill"], verdict["kind"]
    if kill is None or kind in ("pod", "unit"):
        return ""
    container, pod, unit = shown_container(kill), owner_of(kill).kubernetes, shown_unit(kill)
    if pod is not None and pod["pod_name"] is not None:
        inside = f"{pod['container_name']} of " if kind != "container" and pod["container_name"] is not None else ""
        return f" ({inside}pod {pod['namespace']}/{pod['pod_name']})"
    if kind == "container":
        return ""
    if container is not None:
        return f" (in container {container})"
    return f" (of {unit})" if unit is not None else ""


_KINDS = {"container": "Container", "pod": "Pod", "unit": "Unit", "pid": "Process", "process": "Process"}


def _verb(verdict: Verdict, who: str) -> str:
    if verdict["exited_after"]:
        return f"{who} ended by itself, after a process in it was OOM killed"
    if verdict["ended"] is False:
        return f"{who} was not killed as a whole, but a process in it was OOM killed"
    if verdict["ended"] is None:
        return f"In {who[0].lower()}{who[1:]} a process was OOM killed"
    return f"{who} was OOM killed"


def _limit(verdict: Verdict, kill: OomKill) -> str:
    memory, cause = verdict["memory"], verdict["cause"]
    if memory is not None and cause == "some_limit" and memory["limit_bytes"] is not None:
        return f"by the limit of a memory cgroup, {format_size(memory['limit_bytes'])}; which one is unknown"
    if memory is None or cause not in ("own_limit", "limit_above", "limit_below", "cgroup_limit"):
        return _no_limit(verdict, kill)
    bound, level = memory["limit_bytes"], memory["level"]
    cgroup = f"{'' if level == 'other' else f'{level} '}cgroup {memory['cgroup']}"
    if cause == "own_limit" and verdict["kind"] not in ("pid", "process"):
        limit = _ITS_OWN
    elif cause == "own_limit" or (cause == "limit_below" and level == "container" and verdict["kind"] == "pod"):
        limit = f"the limit of its {limit_owner(kill, memory)}"
    elif cause == "limit_above":
        limit = f"a limit above its own, that of the {cgroup}"
    else:
        limit = f"the limit of the {cgroup}" + (" in it" if cause == "limit_below" else "")
    of = "" if bound is None else f"{' of' if limit == _ITS_OWN else ','} {format_size(bound)}"
    if not memory["is_lowered"]:
        return f"by {limit}{of}"
    usage = format_size(memory["usage_bytes"] or 0)
    return f"by {limit}, as it was lowered to {format_size(bound or 0)} while {usage} were in use"


def _no_limit(verdict: Verdict, kill: OomKill) -> str:
    if (number := beancounter(kill)) is not None:
        return f"because the beancounter (UB) {number} had no memory left"
    article = "its" if trigger_role(kill) == "victim" else "a"  # the nodes are those of the requester
    nodes = {
        "cpuset": f"because the memory nodes of {article} cpuset (cpuset.mems) had no memory left",
        "mempolicy": f"because the nodes of {article} memory policy (numactl, mbind, set_mempolicy) had no memory left",
    }
    return {
        "host": "because the host had no memory left; no limit was hit",
        "nodes": f"{nodes.get(kill['incident']['scope'] or '', '')}; other nodes may have had some",
        "host_or_nodes": "because the host, or the memory nodes that were allowed, had no memory left; no cgroup's "
        "limit was hit",
        "sysrq": "because it was requested with SysRq-f",
        "some_limit": "by the limit of a memory cgroup; which one is unknown",
    }.get(verdict["cause"], "because memory ran out; what the limit was is unknown")


def _victim(verdict: Verdict, kill: OomKill) -> str:
    victim, trigger, memory = kill["victim"], kill["trigger"], verdict["memory"]
    name = f"{victim['comm'] or 'a process'} (pid {victim['pid'] or victim['tid']})"
    role = ""
    if verdict["kind"] in ("container", "pod") and victim["is_container_init"] is not None:
        role = ", the container's first process" if victim["is_container_init"] else ", a child process"
    text = f"The victim was {name}{role}{_chosen(verdict['choice'], kill)}."
    role_of_trigger = trigger_role(kill)
    if trigger is not None and role_of_trigger != "victim" and verdict["cause"] != "sysrq":
        who = format_trigger(trigger)
        is_lowered = memory is not None and memory["is_lowered"]
        text += {
            "writer": f" {who}, outside of that cgroup, lowered the limit.",
            "requester": f" {who} requested the memory.",
            "outsider": f" {who}, outside of that cgroup, requested the memory.",
            None: f" {who} lowered the limit, or requested memory right after that." if is_lowered else "",
        }[role_of_trigger]
    if verdict["exited_after"]:
        code = verdict["exit_code"]
        text += " Its first process ended right after that" + (
            "." if code is None else f" with exit code {code}, its own."
        )
    elif verdict["ended"] is False:
        text += " The container kept running."
    elif verdict["ended"] is None:
        text += f" Whether the {verdict['kind']} ended by that is not on record."
    return text


def _chosen(choice: VictimChoice | None, kill: OomKill) -> str:
    """Why the kernel selected this process; continues the sentence about the victim."""
    if choice is None:
        return ""
    other, adjusted = choice["other"], kill["victim"]["oom_score_adj"]
    candidates = "all candidates" if choice["of"] is None else f"{choice['of']} candidates"
    counted = f"; its oom_score_adj is {adjusted}" if adjusted else ""
    if choice["by"] == "oom_score_adj" and other is not None:
        had = f"{format_size(other['rss_bytes'] or 0)} resident and an oom_score_adj of {other['oom_score_adj']}"
        return f", for its oom_score_adj of {adjusted}: {other['comm']} (pid {other['pid']}), with {had}, was spared"
    if choice["by"] == "group":
        first = "" if other is None else f": the kernel chose {other['comm']} (pid {other['pid']})"
        return f", which died with its whole cgroup, as memory.oom.group is set{first}"
    others = (kill["incident"]["victims"] or 1) - 1
    return {
        "allocating_task": ", as it requested the memory: vm.oom_kill_allocating_task is set",
        "group_first": f"; {others} more process{'es' if others > 1 else ''} died with it, as memory.oom.group is set",
        "only": f", the only candidate{counted}",
        "score": f", with the highest score of {candidates}{counted}",
        "size": f", the largest of {candidates}{counted}",
    }[choice["by"]]


def _place_of_sender(sender: object) -> str:
    assert isinstance(sender, dict)
    container, pod, unit = shown_container(sender), owner_of(sender).kubernetes, shown_unit(sender)
    parts = [
        f"container {container}" if container is not None else None,
        f"pod {pod['pod_name']}" if pod is not None and pod["pod_name"] is not None else None,
        f"unit {unit}" if unit is not None else None,
        f"uid {sender['uid']}",
    ]
    return "".join(f", {part}" for part in parts if part)


def _often(verdict: Verdict) -> str | None:
    past = verdict["history"]
    if verdict["cause"] not in OOM:
        if not verdict["earlier"]:
            return None
        times = "once" if verdict["earlier"] == 1 else f"{verdict['earlier']} times"
        return (
            f"It was OOM killed {times} at other times, last at {format_time(past['last'])}; that is not what ended it."
        )
    if past["total"] == 1:
        return "No other OOM kill of it is on record."
    text = f"{past['total']} OOM kills of it are on record"
    if past["first"] is None:
        return f"{text}, without dates."
    text += f" since {format_time(past['first'])}"
    text += f", {past['last_day']} in the last 24 hours"
    if past["pause_s"] is None:
        return f"{text}."
    if past["regular"]:
        return f"{text}; they come regularly, every {format_span(past['pause_s'])}."
    if past["pattern"] == "burst" or past["pause_s"] < 1:
        return f"{text}, most in quick succession."
    return f"{text}; the median interval is {format_span(past['pause_s'])}, but they are irregular."


def _runtime(verdict: Verdict) -> str | None:
    status = verdict["runtime"]
    if status is None or status["oom_killed"] is None:
        return None
    name = status["runtime"] or "The runtime"
    if name in ("docker", "podman"):
        name += " inspect"
    code = "" if status["exit_code"] is None else f" and exit code {status['exit_code']}"
    text = f"{name} says OOMKilled {'true' if status['oom_killed'] else 'false'}{code}"
    return f"{text}{_assess(status)}"


def _assess(status: RuntimeStatus) -> str:
    if status["note"] == "earlier":
        return ". It refers to an earlier kill in this container, which did not end it."
    if status["note"] == "unrecorded":
        return ". That kill has no record; of a time without records, the runtime is right."
    if status["agrees"] is False and status["note"] == "child":
        return ". The kernel is right: a process was OOM killed; this runtime counts only the container's first one."
    if status["agrees"] is False:
        return ". The kernel is right: it killed the container's first process, and the runtime did not notice."
    if status["agrees"] and status["note"] == "child":
        return ". That is true of a process in it, not of the container's first one."
    return ", and is right." if status["agrees"] else "."


def _unknown(verdict: Verdict) -> str | None:
    """The times in which kills were recorded, if the answer depends on them."""
    text = ""
    if verdict["cause"] in ("exited", "not_oom", "unknown", "running"):
        since, others = verdict["oom_since"], verdict["sigkill_since"]
        when, when_others = _when(since, verdict["oom_until"]), _when(others, verdict["sigkill_until"])
        text = "OOM kills are not on record" if since is None else f"OOM kills are on record {when}"
        text += ", other SIGKILLs not." if others is None else f", other SIGKILLs {when_others}."
    if verdict["missing"]:
        text += f" {verdict['missing']} kills of that time have no record: this may be one of them."
    return text.strip() or None


def _when(since: str | None, until: str | None) -> str:
    return f"since {format_time(since)}" if until is None else f"from {format_time(since)} to {format_time(until)}"
