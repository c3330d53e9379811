# SPDX-License-Identifier: Apache-2.0
"""A verdict -> sentences for humans; each holds what is known, and no more."""

from tracer.event import OomKill
from tracer.printable import printable
from tracer.why.advice import filling
from tracer.why.killer import KillerKind
from tracer.why.memory import Memory
from tracer.why.moment import seconds, span, told
from tracer.why.verdict import OOM, SIGKILLED, Runtime, Verdict

_OTHERS_MAX = 3
_SMALL = 0.5
_WHY_KILLERS: dict[KillerKind, str] = {
    "kernel": "The kernel itself did, for another reason than memory: the init of its PID namespace ended, a limit of "
    "CPU time was hit, or a seccomp filter.",
    "inside": "It came from inside the same container.",
    "container": "It came from another container.",
    "systemd-oomd": "systemd-oomd acts when a cgroup is under memory pressure, before the kernel's OOM killer has to.",
    "oom_daemon": "That is a daemon which kills before the host is out of memory.",
    "kubelet": "The kubelet did: an eviction, a probe that failed, or a pod that was deleted.",
    "runtime": "A container runtime does that when it is told to: by a kill command, by a stop whose time was over "
    "(10 s for docker stop), by the kubelet.",
    "systemd": "systemd does that for systemctl kill, and when a stop took longer than TimeoutStopSec.",
    "shell": "That is somebody's command or script.",
    "other": "",
}
_SIGNALS = {129: "SIGHUP", 130: "SIGINT", 131: "SIGQUIT", 134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE", 139: "SIGSEGV",
            141: "SIGPIPE", 143: "SIGTERM"}  # fmt: skip


def explain(verdict: Verdict) -> list[str]:
    """Paragraphs: what happened, what the memory was, how often, what the runtime says, what is not known."""
    parts = [_what(verdict), _memory(verdict), _often(verdict), _runtime(verdict), _unknown(verdict)]
    return [printable(part) for part in parts if part]


def size(count: int) -> str:
    """``64.0 MiB``."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def _what(verdict: Verdict) -> str:
    who, when = f"{_KINDS[verdict['kind']]} {verdict['name']}{_where(verdict)}", told(verdict["time"])
    kill, cause, code = verdict["kill"], verdict["cause"], verdict["exit_code"]
    if kill is not None and kill["type"] == "oom_kill":
        return f"{_verb(verdict, who)} at {when}, {_limit(verdict, kill)}. {_victim(verdict, kill)}"
    if kill is not None:
        sender, victim = kill["sender"], kill["victim"]
        whom = "" if verdict["kind"] in ("pid", "process") else f" to {victim['comm']} (pid {victim['pid']})"
        what = f"{who} was killed at {when} with SIGKILL{whom}, and not by the OOM killer."
        if verdict["ended"] is False:
            what = (
                f"In {who[0].lower()}{who[1:]} {victim['comm']} (pid {victim['pid']}) was killed at {when} with SIGKILL"
            )
            what += ", and not by the OOM killer."
        if sender is not None:
            what += f" {sender['comm']} (pid {sender['pid']}{_place_of_sender(sender)}) sent it."
        return f"{what} {_WHY_KILLERS[verdict['killer'] or 'other']}".rstrip()
    if cause == "running":
        return f"{who} runs, and no kill of it is on record."
    ended = f"{who} ended at {when}" if verdict["time"] is not None else f"{who} ended"
    if cause == "exited" and code == SIGKILLED:
        return (
            f"{ended} and was not killed: no kill of it is on record, so it exited with {code} by itself, as a shell "
            "does whose command was killed."
        )
    if cause == "exited" and code in _SIGNALS:
        signal = f"{_SIGNALS[code]} leaves, 128 + {code - 128}"
        return f"{ended} and was not killed by SIGKILL: exit code {code} is what {signal}."
    if cause == "exited":
        return f"{ended} and was not killed: it exited with {code} by itself; SIGKILL would have left {SIGKILLED}."
    if cause == "not_oom":
        return (
            f"{ended} with exit code {code}, and it was not the OOM killer: that is on record. {code} is what SIGKILL "
            "leaves, or the program's own choice; whether and by whom SIGKILL was sent is not on record."
        )
    return f"{ended}{'' if code is None else f' with exit code {code}'}, and why is not known: nobody watched then."


def _where(verdict: Verdict) -> str:
    """Of which pod the container was, of which container or unit the process; the name alone may be that of many."""
    kill, kind = verdict["kill"], verdict["kind"]
    if kill is None or kind in ("pod", "unit"):
        return ""
    container, pod, systemd = kill["container"], kill["kubernetes"], kill["systemd"]
    if pod is not None and pod["pod_name"] is not None:
        inside = f"{pod['container_name']} of " if kind != "container" and pod["container_name"] is not None else ""
        return f" ({inside}pod {pod['namespace']}/{pod['pod_name']})"
    if kind == "container":
        return ""
    if container is not None:
        return f" (in container {container['name'] or container['id'][:12]})"
    return f" (of {systemd['unit']})" if systemd is not None and systemd["unit"] is not None else ""


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
    bound = memory["limit_bytes"] if memory is not None else None
    of = "" if bound is None else f" of {size(bound)}"
    if cause == "own_limit":
        return f"by its own limit{of}"
    if cause == "limit_above" and memory is not None:
        level = "" if memory["level"] == "other" else f"{memory['level']} "
        return f"by a limit above its own, that of the {level}cgroup {memory['cgroup']}{of}"
    return {
        "host": "because the host had no memory left; no limit was hit",
        "nodes": "because the memory nodes that it may use had none left, though the host may have had some",
        "sysrq": "because somebody asked for it with SysRq-f",
        "some_limit": "by the limit of a memory cgroup; of which is not known",
    }.get(cause, "for want of memory; whose limit it was is not known")


def _victim(verdict: Verdict, kill: OomKill) -> str:
    victim, trigger = kill["victim"], kill["trigger"]
    name = f"{victim['comm'] or 'a process'} (pid {victim['pid'] or victim['tid']})"
    role = ""
    if verdict["kind"] in ("container", "pod") and victim["is_container_init"] is not None:
        role = ", the container's first process," if victim["is_container_init"] else ", a child process,"
    others = (kill["incident"]["victims"] or 1) - 1
    group = f" and {others} more of its cgroup" if others > 0 else ""
    text = f"The victim was {name}{role}{group}".rstrip(",") + "."
    if trigger is not None and verdict["cause"] != "sysrq" and (trigger["pid"] or trigger["tid"]) != victim["pid"]:
        text += f" The one that asked for more was {trigger['comm']} (pid {trigger['pid'] or trigger['tid']})."
    if verdict["exited_after"]:
        code = verdict["exit_code"]
        text += " Its first process ended right after that" + (
            "." if code is None else f" with {code}, which is its own exit code."
        )
    elif verdict["ended"] is False:
        text += " The container lived on."
    elif verdict["ended"] is None:
        text += f" Whether the {verdict['kind']} ended by that is not on record."
    return text


def _place_of_sender(sender: object) -> str:
    assert isinstance(sender, dict)
    container, pod, systemd = sender["container"], sender["kubernetes"], sender["systemd"]
    parts = [
        f"container {container['name'] or container['id'][:12]}" if container is not None else None,
        f"pod {pod['pod_name']}" if pod is not None and pod["pod_name"] is not None else None,
        f"unit {systemd['unit']}" if systemd is not None and systemd["unit"] is not None else None,
        f"uid {sender['uid']}",
    ]
    return "".join(f", {part}" for part in parts if part)


def _memory(verdict: Verdict) -> str | None:
    memory, kill = verdict["memory"], verdict["kill"]
    if kill is None or kill["type"] != "oom_kill":
        return None
    rss, name = kill["victim"]["rss_bytes"], kill["victim"]["comm"] or "The victim"
    if memory is None:
        return None if rss is None else f"{name} had {size(rss)} resident."
    text = [*filter(None, [_breakdown(memory)])]
    bound = memory["limit_bytes"] or memory["usage_bytes"]
    if rss is not None and bound:
        share = f"{100 * rss // bound} % of the limit"
        if rss > bound:
            share = "more than the limit, as pages of files are in it that others were charged for"
        text.append(f"{name} had {size(rss)} resident, {share}.")
        if rss < _SMALL * bound:
            others = "" if filling(memory) in ("tmpfs", "cache", "kernel") else _others(kill)
            text.append(f"Others were {others}." if others else "The rest was not its.")
    elif rss is not None:
        text.append(f"{name} had {size(rss)} resident.")
    started, ended = seconds(kill["victim"]["started_at"]), seconds(kill["time"])
    if started is not None and ended is not None and ended >= started:
        text.append(f"It had run for {span(ended - started)}.")
    return " ".join(text)


def _breakdown(memory: Memory) -> str | None:
    parts = memory["breakdown"]
    if parts is None:
        return "What the limit was full of is not on record."
    shmem = parts["shmem_bytes"]
    cache = None if parts["file_bytes"] is None else max(0, parts["file_bytes"] - (shmem or 0))
    kernel = parts["kernel_bytes"] if parts["kernel_bytes"] is not None else parts["slab_bytes"]
    named = (
        (parts["anon_bytes"], "heap"), (cache, "page cache"), (shmem, "tmpfs and shared memory"), (kernel, "kernel"),
    )  # fmt: skip
    told_parts = [f"{size(count)} {name}" for count, name in named if count]
    if not told_parts:
        return None
    most = {"heap": "heap", "tmpfs": "tmpfs and shared memory", "cache": "page cache", "kernel": "kernel memory"}
    filled = filling(memory)
    return f"What filled it was {'mostly ' + most[filled] if filled else 'a mixture'}: {', '.join(told_parts)}."


def _others(kill: OomKill) -> str:
    own = kill["victim"]["pid"]
    others = [each for each in kill["candidates"] or [] if each["pid"] != own and each["rss_bytes"]]
    others.sort(key=lambda each: -(each["rss_bytes"] or 0))
    return ", ".join(
        f"{each['comm']} (pid {each['pid']}) {size(each['rss_bytes'] or 0)}" for each in others[:_OTHERS_MAX]
    )


def _often(verdict: Verdict) -> str | None:
    past = verdict["history"]
    if verdict["cause"] not in OOM:
        if not verdict["earlier"]:
            return None
        times = "once" if verdict["earlier"] == 1 else f"{verdict['earlier']} times"
        return f"It was OOM killed {times} at other times, last at {told(past['last'])}; that is not what ended it."
    if past["total"] == 1:
        return "No other OOM kill of it is on record."
    text = f"{past['total']} OOM kills of it are on record"
    if past["first"] is None:
        return f"{text}, of unknown times."
    text += f" since {told(past['first'])}"
    text += f", {past['last_day']} of the last 24 hours"
    if past["pause_s"] is None:
        return f"{text}."
    if past["regular"]:
        return f"{text}; they come regularly, every {span(past['pause_s'])}."
    if past["pause_s"] < 1:
        return f"{text}, most in quick succession."
    return f"{text}, with {span(past['pause_s'])} in between as a rule, but not regularly."


def _runtime(verdict: Verdict) -> str | None:
    says = verdict["runtime"]
    if says is None or says["oom_killed"] is None:
        return None
    name = f"{says['runtime']} inspect" if says["runtime"] in ("docker", "podman") else says["runtime"] or "The runtime"
    code = "" if says["exit_code"] is None else f" and exit code {says['exit_code']}"
    text = f"{name} says OOMKilled {'true' if says['oom_killed'] else 'false'}{code}"
    return f"{text}{_judged(says)}"


def _judged(says: Runtime) -> str:
    if says["note"] == "earlier":
        return ". It means an earlier kill in this container, which is not what ended it."
    if says["note"] == "unrecorded":
        return ". No record tells of that kill: where nobody watched, the runtime is right."
    if says["agrees"] is False and says["note"] == "child":
        return ". The kernel is right: a process was OOM killed; this runtime counts only the container's first one."
    if says["agrees"] is False:
        return ". The kernel is right: it killed the container's first process, and the runtime did not notice."
    if says["agrees"] and says["note"] == "child":
        return ". That is right of a process in it, not of the container's first one."
    return ", and is right." if says["agrees"] else "."


def _unknown(verdict: Verdict) -> str | None:
    """From when on kills are on record, where the answer hangs on that."""
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
    return f"since {told(since)}" if until is None else f"from {told(since)} to {told(until)}"
