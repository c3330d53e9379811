# SPDX-License-Identifier: Apache-2.0
"""Evidence from real kernel logs and records, verdicts, and sentences."""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.environment import MIB, ROOT, require
from tests.harness.kernel_log_files import FILES
from tests.harness.records import HOST
from tests.harness.schema import validate
from tests.unit.commands.test_cli import check_refusal, oomtrace
from tracer.base.clock import format_rfc3339
from tracer.delivery.sinks.journald_fields import journal_entry
from tracer.encoding.decoder import InvalidRecordError, RecordReader
from tracer.identity.runtime_metadata import ContainerMetadata
from tracer.identity.runtimes import Runtimes
from tracer.records.matching import KINDS, Kind
from tracer.records.model import OomExit, OomKill, Sigkill
from tracer.records.unix_time import unix_seconds
from tracer.report.incidents import Collection, workloads
from tracer.why import search, sources
from tracer.why.advice import advise
from tracer.why.coverage import Coverage
from tracer.why.history import summarize_history
from tracer.why.search import ContainerStatus, Target
from tracer.why.sources import FoundKill, SearchedSource
from tracer.why.timestamps import format_span, format_time, to_rfc3339
from tracer.why.usage import format_size
from tracer.why.verdict import Verdict, judge
from tracer.why.words import explain_verdict

ID = "5aaf9eb7648eeb1459d86eaa0ace8bcfa93089642e5c3113a14250dae3238aaf"
DOCKER = f"/docker/{ID}".encode()
POD_UID = "2c48913c-b29f-11e7-9350-020968147796"
POD = f"/kubepods/burstable/pod{POD_UID}".encode()
UNIT = b"/system.slice/mail.service"
KILL_S = 1_800_000_000.0
NOW_S = KILL_S + 600
AT = format_rfc3339(int(KILL_S * 1e9))
RECORDS = RecordReader()


def no_names(_id: str, _runtime: str | None, _pod: str | None, _user: int | None) -> ContainerMetadata:
    return {}


def kills(log: str, *replaced: tuple[bytes, bytes], tmp: Path) -> list[OomKill]:
    """The kills in a real log, optionally with cgroups renamed."""
    text = FILES[log]
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    file = tmp / f"{log}.txt"
    file.write_bytes(text)
    read = sources.read_sources([str(tmp / "none.json")], [str(file)], no_names, lambda _kill: True, HOST)
    found = [each.kill for each in read.found if each.source == f"log {file}"]
    for kill in found:
        kill["time"] = AT
        kill["host"] = HOST
        validate(kill)
    return [kill for kill in found if kill["type"] == "oom_kill"]


@pytest.fixture
def killed(tmp_path: Path) -> Callable[..., list[OomKill]]:
    (tmp_path / "none.json").touch()
    return lambda log, *replaced: kills(log, *replaced, tmp=tmp_path)


def judged(
    found: list[Any],
    name: str = "x",
    kind: Kind = "process",
    states: tuple[ContainerStatus, ...] = (),
    running: tuple[Kind, ...] = (),
    watches: tuple[Coverage, ...] = (),
    exit_code: int | None = None,
) -> Verdict:
    each = [kill if isinstance(kill, FoundKill) else FoundKill(kill, "test") for kill in found]
    return judge(Target(name, states, running), kind, each, watches, 0, exit_code, NOW_S)


def state(**changed: Any) -> ContainerStatus:
    """A Docker container that has ended."""
    ended: ContainerStatus = {
        "id": ID,
        "runtime": "docker",
        "name": "cart",
        "pod_uid": None,
        "running": False,
        "oom_killed": True,
        "exit_code": 137,
        "finished_at": format_rfc3339(int((KILL_S + 0.3) * 1e9)),
    }
    return {**ended, **changed}  # type: ignore[typeddict-item]


def sigkill(**changed: Any) -> Sigkill:
    """A record as the daemon writes it for ``docker kill``."""
    record: dict[str, Any] = {
        "schema": 1,
        "type": "sigkill",
        "id": "6a4ce4a0-1c5c1eee28-548",
        "time": AT,
        "seq": 3,
        "host": HOST,
        "source": "bpf",
        "delayed": False,
        "victim": {
            "pid": 548,
            "tid": 548,
            "comm": "web",
            "uid": 0,
            "cgroup": f"/docker/{ID}",
            "is_container_init": True,
        },
        "sender": {
            "pid": 700,
            "tid": 700,
            "comm": "runc",
            "uid": 0,
            "cgroup": "/system.slice/docker.service",
            "container": None,
            "kubernetes": None,
            "systemd": {"unit": "docker.service", "slice": "system.slice"},
            "owner": None,
        },
        "from_kernel": False,
        "container": {
            "id": ID,
            "runtime": "docker",
            "name": "cart",
            "image": None,
            "labels": None,
            "node_container_id": None,
            "ip_addresses": None,
        },
        "kubernetes": None,
        "systemd": None,
        "owner": None,
        "truncated": [],
        **changed,
    }
    validate(record)
    return record  # type: ignore[return-value]


def exit_of(kill: OomKill, init_died: bool | None, oom_killed: bool | None = None) -> OomExit:
    verdict = None if oom_killed is None else {"oom_killed": oom_killed, "exit_code": None}
    record: dict[str, Any] = {
        "schema": 1,
        "type": "oom_exit",
        "id": kill["id"],
        "time": kill["time"],
        "seq": 1,
        "host": HOST,
        "incident_id": kill["incident"]["id"],
        "pid": kill["victim"]["pid"],
        "after_ns": 1000,
        "container_init_died": init_died,
        "runtime_verdict": verdict,
    }
    validate(record)
    return record  # type: ignore[return-value]


def text(verdict: Verdict) -> str:
    return "\n".join(explain_verdict(verdict))


Killed = Callable[..., list[OomKill]]


@pytest.mark.parametrize(
    ("log", "replaced", "cause"),
    [
        ("6.1-v1-memcg1", (), "own_limit"),
        ("5.10-memcg2", (), "own_limit"),
        ("6.1-v1-nested", (), "limit_above"),
        ("6.1-v1-memcg1", ((b"/test", DOCKER),), "own_limit"),
        ("6.1-v1-nested", ((b"/outer/inner", DOCKER + b"/inner"), (b"/outer", DOCKER)), "own_limit"),
        ("6.1-v1-nested", ((b"/outer/inner", POD + f"/{ID}".encode()), (b"/outer", POD)), "limit_above"),
        ("6.1-v1-nested", ((b"/outer/inner", UNIT), (b"/outer", b"/system.slice")), "limit_above"),
        ("5.10-memcg2", ((b"/test", UNIT),), "own_limit"),
        ("6.12-global", (), "host"),
        ("6.1-policy", (), "nodes"),
        ("6.1-cpuset", (), "nodes"),
        ("6.1-sysrq", (), "sysrq"),
    ],
)
def test_cause(killed: Killed, log: str, replaced: tuple[tuple[bytes, bytes], ...], cause: str) -> None:
    """The cause follows from the kernel's log; the answer states it, and has advice."""
    verdict = judged(killed(log, *replaced)[-1:])
    assert cause == verdict["cause"]
    assert advise(verdict)
    said = text(verdict)
    assert {
        "own_limit": "by the limit of its ",
        "limit_above": "a limit above its own",
        "host": "the host had no memory left",
        "nodes": " nodes of its ",
        "sysrq": "SysRq-f",
    }[cause] in said
    assert "2027-01-15" in said


def test_limit_above_is_named(killed: Killed) -> None:
    """The limit to raise is the one above, not the container's."""
    (kill,) = killed("6.1-v1-nested", (b"/outer/inner", UNIT), (b"/outer", b"/system.slice"))
    verdict = judged([kill], "mail", "unit")
    assert "that of the slice cgroup /system.slice, 40.0 MiB." in text(verdict)
    commands = [command for advice in advise(verdict) for command in advice["commands"]]
    assert any(command.startswith("systemctl set-property system.slice MemoryMax=") for command in commands)


def test_pod(killed: Killed) -> None:
    """If the target is the pod, its limit is its own."""
    (kill,) = killed("6.1-v1-nested", (b"/outer/inner", POD + f"/{ID}".encode()), (b"/outer", POD))
    assert judged([kill], POD_UID, "pod")["cause"] == "own_limit"
    assert judged([kill], ID, "container")["cause"] == "limit_above"
    target = Target(POD_UID, (), ())
    assert search.first_kind(kill, target) == "pod"


def test_where(killed: Killed) -> None:
    """Ambiguous names are shown with the pod, container or unit."""
    (kill,) = killed("6.1-v1-memcg1", (b"/test", POD + f"/{ID}".encode()))
    assert kill["kubernetes"] is not None
    kill["kubernetes"].update({"pod_name": "cart-0", "namespace": "shop", "container_name": "app"})
    assert "container app (pod shop/cart-0) a process" in text(judged([kill], "app", "container"))
    assert "Process hog (app of pod shop/cart-0) was" in text(judged([kill], "hog"))
    (served,) = killed("5.10-memcg2", (b"/test", UNIT))
    assert "Process hog (of mail.service) was" in text(judged([served], "hog"))


def test_known_containers(tmp_path: Path) -> None:
    """Containers are found by name in the runtimes' directories, among any other files."""
    folder = tmp_path / "containers" / ID
    folder.mkdir(parents=True)
    (tmp_path / "containers" / "no\nid").mkdir()
    (tmp_path / "containers" / "file").touch()
    ended = {"Running": False, "OOMKilled": False, "ExitCode": 3, "FinishedAt": "2027-01-15T08:00:00.5Z"}
    (folder / "config.v2.json").write_text(json.dumps({"Name": "/cart", "State": ended}))
    runtimes = Runtimes([("docker", str(tmp_path))])
    for name in ("cart", ID, ID[:12]):
        (told_,) = search.find_target(name, runtimes).states
        expected = state(oom_killed=False, exit_code=3, finished_at="2027-01-15T08:00:00.500000000Z")
        assert {name: told_[name] for name in expected} == expected  # type: ignore[literal-required]
    assert search.find_target("car", runtimes).states == ()


def test_options_in_docs() -> None:
    """docs/why.md explains every option."""
    shown = set(re.findall(r"(?<![\w-])(--[a-z-]+)", oomtrace("why", "--help").stdout)) - {"--help"}
    page = (ROOT / "docs" / "why.md").read_text()
    assert shown <= set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", page))


def test_names_match(killed: Killed) -> None:
    """A victim is found by container, unit, pid and name, and not by those of another."""
    (kill,) = killed("6.1-v1-memcg1", (b"/test", DOCKER))
    (served,) = killed("5.10-memcg2", (b"/test", UNIT))

    def kind(name: str, of: OomKill = kill) -> Kind | None:
        return search.first_kind(of, Target(name, (), ()))

    assert [kind(ID), kind(ID[:12]), kind(ID[:3]), kind("172"), kind("hog"), kind("ho"), kind("17")] == [
        *("container", "container", None, "pid", "process"),
        *(None, None),
    ]
    assert [kind("mail", served), kind("mail.service", served), kind("m*", served), kind("ail", served)] == [
        *("unit", "unit", "unit"),
        None,
    ]
    by_state = Target("cart", (state(),), ())
    assert search.first_kind(kill, by_state) == "container"
    assert search.first_kind(served, by_state) is None


def test_container_before_process(killed: Killed) -> None:
    """A name of a container and of a process elsewhere means the container."""
    (kill,) = killed("6.1-v1-memcg1")
    kind, found, _ = search.select_kills([FoundKill(kill, "test")], Target("hog", (state(name="hog"),), ()))
    assert (kind, found) == ("container", [])
    kind, found, _ = search.select_kills([FoundKill(kill, "test")], Target("hog", (), ()))
    assert (kind, len(found)) == ("process", 1)


def test_the_same_kill_twice(killed: Killed) -> None:
    """A kill in a record and in the kernel log counts once: the record, with the log's breakdown."""
    (logged,) = killed("5.10-memcg2")
    assert logged["limit"] is not None
    assert logged["limit"]["breakdown"] is not None
    seen = copy.deepcopy(logged)
    seen["source"], seen["id"], seen["time"] = "bpf_tracepoints", "other", format_rfc3339(int((KILL_S + 0.002) * 1e9))
    assert seen["limit"] is not None
    seen["limit"]["breakdown"] = None
    for order in (
        [FoundKill(logged, "log"), FoundKill(seen, "file")],
        [FoundKill(seen, "file"), FoundKill(logged, "log")],
    ):
        kind, found, _ = search.select_kills(copy.deepcopy(order), Target("hog", (), ()))
        assert (kind, [each.source for each in found]) == ("process", ["file"])
        kill = found[0].kill
        assert kill["type"] == "oom_kill"
        assert kill["limit"] is not None
        assert kill["limit"]["breakdown"] == logged["limit"]["breakdown"]


def test_tmpfs(killed: Killed) -> None:
    """Files in tmpfs are named, and raising the limit is not the first advice."""
    (kill,) = killed("6.12-tmpfs", (b"/tfs", DOCKER))
    verdict = judged([kill], ID, "container")
    assert "mostly tmpfs and shared memory" in text(verdict)
    assert "tmpfs" in advise(verdict)[0]["text"]


def test_the_victim_was_small(killed: Killed) -> None:
    """If the victim had less than half of the limit, the other processes are named."""
    kill = killed("7.2-other")[-1]
    limit = kill["limit"]
    assert limit is not None
    kill["victim"]["rss_bytes"] = (limit["limit_bytes"] or 0) // 4
    kill["candidates"] = [{"pid": 999, "comm": "other", "points": None, "rss_bytes": 3 * MIB, "oom_score_adj": 0}]
    assert "The largest others: other (pid 999) 3.0 MiB." in text(judged([kill]))


def container_kill(killed: Killed, is_init: bool | None) -> OomKill:
    (kill,) = killed("6.1-v1-memcg1", (b"/test", DOCKER))
    kill["victim"]["is_container_init"] = is_init
    return kill


def test_init_killed(killed: Killed) -> None:
    """A container killed by its own limit; Docker agrees."""
    kill = container_kill(killed, True)
    verdict = judged([kill], "cart", "container", (state(),))
    assert (verdict["cause"], verdict["ended"], verdict["exited_after"]) == ("own_limit", True, False)
    assert verdict["runtime"] is not None
    assert (verdict["runtime"]["agrees"], verdict["runtime"]["note"]) == (True, None)
    assert text(verdict).startswith("Container cart was OOM killed at")
    assert "docker inspect says OOMKilled true and exit code 137, and is right." in text(verdict)


def test_runtime_is_wrong_about_init(killed: Killed) -> None:
    """podman 4.3 always reports false: the kernel is right."""
    verdict = judged([container_kill(killed, True)], "cart", "container", (state(oom_killed=False, runtime="podman"),))
    assert verdict["runtime"] is not None
    assert (verdict["runtime"]["agrees"], verdict["runtime"]["note"]) == (False, "init")
    assert "podman inspect says OOMKilled false and exit code 137. The kernel is right" in text(verdict)


@pytest.mark.parametrize("oom_killed", [True, False])
def test_child_killed(killed: Killed, oom_killed: bool) -> None:
    """A child was killed, the container runs: Docker's flag depends on its version."""
    kill = container_kill(killed, False)
    found = FoundKill(kill, "test", exit_of(kill, False, oom_killed))
    lives = state(running=True, oom_killed=oom_killed, exit_code=None, finished_at=None)
    verdict = judged([found], "cart", "container", (lives,), ("container",))
    assert (verdict["cause"], verdict["ended"]) == ("own_limit", False)
    assert verdict["runtime"] is not None
    assert (verdict["runtime"]["agrees"], verdict["runtime"]["note"]) == (oom_killed, "child")
    assert "was not killed as a whole, but a process in it was OOM killed" in text(verdict)
    assert "The container kept running." in text(verdict)


def test_exited_after_child(killed: Killed) -> None:
    """A shell whose command was OOM killed exits with 137: the container was not killed."""
    kill = container_kill(killed, False)
    verdict = judged([kill], "cart", "container", (state(oom_killed=False),))
    assert (verdict["cause"], verdict["ended"], verdict["exited_after"]) == ("own_limit", True, True)
    assert "ended by itself, after a process in it was OOM killed" in text(verdict)


def test_exited_after_child_by_records_alone(killed: Killed) -> None:
    """The exit record shows that the init exited soon after, without having been killed."""
    kill = container_kill(killed, False)
    verdict = judged([FoundKill(kill, "test", exit_of(kill, True))], "cart", "container")
    assert (verdict["ended"], verdict["exited_after"]) == (True, True)


def test_log_does_not_know_the_init(killed: Killed) -> None:
    """With only the kernel log, the runtime alone shows whether the container ended."""
    kill = container_kill(killed, None)
    assert judged([kill], "cart", "container")["ended"] is None
    assert "is not on record" in text(judged([kill], "cart", "container"))
    verdict = judged([kill], "cart", "container", (state(),))
    assert (verdict["ended"], verdict["exited_after"]) == (True, False)
    verdict = judged([kill], "cart", "container", (state(exit_code=1),))
    assert (verdict["ended"], verdict["exited_after"]) == (True, True)


def test_another_end_later(killed: Killed) -> None:
    """An OOM kill of a child an hour before exit code 0 did not end the container, in spite of Docker's flag."""
    kill = container_kill(killed, False)
    later = state(exit_code=0, finished_at=format_rfc3339(int((KILL_S + 3600) * 1e9)))
    verdict = judged([kill], "cart", "container", (later,))
    assert (verdict["cause"], verdict["kill"], verdict["earlier"]) == ("exited", None, 1)
    assert verdict["runtime"] is not None
    assert (verdict["runtime"]["agrees"], verdict["runtime"]["note"]) == (False, "earlier")
    assert "was not killed: it exited with 0 by itself" in text(verdict)
    assert "OOM killed once at other times" in text(verdict)


@pytest.mark.parametrize("running", [True, False])
def test_container_of_another_pod(killed: Killed, running: bool) -> None:
    """Of several containers with the name, the answer is about the pod in which one was killed."""
    (kill,) = killed("6.1-v1-memcg1", (b"/test", POD + f"/{ID}".encode()))
    own = state(runtime="containerd", name="app", pod_uid=POD_UID, exit_code=137)
    finished_at = None if running else AFTER
    other = state(
        id="b" * 64, runtime="containerd", name="app", pod_uid="other", exit_code=7, running=running,
        finished_at=finished_at, oom_killed=False,
    )  # fmt: skip
    for states in ((own, other), (other, own)):
        verdict = judged([kill], "app", "container", states)
        assert (verdict["kill"], verdict["exit_code"], verdict["ended"]) == (kill, 137, True)
        assert verdict["runtime"] is not None
        assert verdict["runtime"]["oom_killed"] is True
    restarted = {**other, "pod_uid": POD_UID}
    verdict = judged([kill], "app", "container", (restarted, own))  # type: ignore[arg-type]
    assert (verdict["kill"], verdict["exit_code"]) == ((kill, 137) if running else (None, 7))


SINCE = format_rfc3339(int((KILL_S - 3600) * 1e9))
BEFORE = format_rfc3339(int((KILL_S - 60) * 1e9))
AFTER = format_rfc3339(int((KILL_S + 3600) * 1e9))


@pytest.mark.parametrize(
    ("watches", "cause", "said"),
    [
        ((), "unknown", "kills were not recorded then"),
        ((Coverage(AFTER, None, "off"),), "unknown", "kills were not recorded then"),
        ((Coverage(SINCE, BEFORE, "all"),), "unknown", "kills were not recorded then"),
        ((Coverage(SINCE, None, "off"),), "not_oom", "other SIGKILLs are not on record"),
        ((Coverage(SINCE, None, "off"), Coverage(AFTER, None, "containers")), "not_oom", "are not on record"),
        ((Coverage(SINCE, None, "off"), Coverage(SINCE, BEFORE, "containers")), "not_oom", "are not on record"),
        ((Coverage(SINCE, None, "containers"),), "exited", "was not killed: no kill of it is on record"),
        ((Coverage(SINCE, BEFORE, "off"), Coverage(SINCE, AFTER, "containers")), "exited", "was not killed"),
    ],
)
def test_137_without_a_kill(watches: tuple[Coverage, ...], cause: str, said: str) -> None:
    """The absence of a record proves something only for times in which kills were recorded."""
    verdict = judged([], "cart", "container", (state(oom_killed=False),), watches=watches)
    assert cause == verdict["cause"]
    assert said in text(verdict)


@pytest.mark.parametrize(("code", "said"), [(0, "exited with 0 by itself"), (139, "that of SIGSEGV"), (143, "SIGTERM")])
def test_other_exit_codes(code: int, said: str) -> None:
    """Exit codes other than 137 exclude SIGKILL, also if they come from --exit-code."""
    for verdict in (
        judged([], "cart", "container", (state(exit_code=code, oom_killed=False),)),
        judged([], "cart", "container", (state(exit_code=None, oom_killed=False),), exit_code=code),
    ):
        assert verdict["cause"] == "exited"
        assert said in text(verdict)


def test_unrecorded() -> None:
    """Docker reports OOMKilled without a record of a kill: it may be right."""
    verdict = judged([], "cart", "container", (state(),))
    assert verdict["cause"] == "unknown"
    assert "of a time without records, the runtime is right" in text(verdict)


SENDERS = {
    "runtime": {},
    "kubelet": {"comm": "kubelet", "systemd": {"unit": "kubelet.service", "slice": None}},
    "systemd-oomd": {"comm": "systemd-oomd", "systemd": {"unit": "systemd-oomd.service", "slice": None}},
    "oom_daemon": {"comm": "earlyoom", "systemd": {"unit": "earlyoom.service", "slice": None}},
    "systemd": {"pid": 1, "comm": "systemd", "systemd": {"unit": "init.scope", "slice": None}},
    "shell": {"comm": "bash", "uid": 1000, "systemd": {"unit": "session-3.scope", "slice": None}},
    "other": {"comm": "python3"},
}


@pytest.mark.parametrize("kind", SENDERS)
def test_killed_by_somebody(kind: str) -> None:
    """The sender of SIGKILL is named, with its usual reasons and where to look."""
    record = sigkill()
    assert record["sender"] is not None
    record["sender"].update(SENDERS[kind])  # type: ignore[typeddict-item]
    verdict = judged([record], "cart", "container", (state(oom_killed=False),))
    assert (verdict["cause"], verdict["killer"], verdict["ended"]) == ("sigkill", kind, True)
    said = text(verdict)
    assert "with SIGKILL to web (pid 548), and not by the OOM killer" in said
    assert f"{record['sender']['comm']} (pid {record['sender']['pid']}" in said
    assert "docker inspect says OOMKilled false and exit code 137, and is right." in said
    assert advise(verdict)[0]["text"]


def test_events_of_a_kill() -> None:
    """Docker's events have an explicit end: --until 0s shows none of the current second."""
    record = sigkill()
    assert record["sender"] is not None
    record["sender"].update(SENDERS["runtime"])  # type: ignore[typeddict-item]
    (advice,) = advise(judged([record], "cart", "container"))
    assert advice["commands"] == [
        f"docker events --since {AT[:19]}Z --until {format_rfc3339(int((KILL_S + 10) * 1e9))[:19]}Z "
        f"--filter container={ID[:12]}"
    ]
    record["time"] = None
    assert [each["commands"] for each in advise(judged([record], "cart", "container"))] == [[]]


def test_killed_from_inside() -> None:
    """A process in a container named runc is a process in a container."""
    record = sigkill()
    assert record["sender"] is not None
    record["sender"]["container"] = record["container"]
    assert judged([record])["killer"] == "inside"
    record["container"] = None
    assert judged([record])["killer"] == "container"
    record["sender"] = None
    assert judged([record])["killer"] == "kernel"


def test_oom_kill_before_the_runtimes_own(killed: Killed) -> None:
    """runc sends SIGKILL after the container's init was OOM killed: the OOM kill is the cause."""
    kill = container_kill(killed, True)
    late = sigkill(time=format_rfc3339(int((KILL_S + 0.2) * 1e9)))
    verdict = judged([kill, late], "cart", "container", (state(),))
    assert verdict["cause"] == "own_limit"
    assert judged([kill, late], "cart", "container")["cause"] == "own_limit"


def test_docker_kill_after_a_child(killed: Killed) -> None:
    """Docker's flag refers to a child that was OOM killed earlier; the container got a SIGKILL."""
    kill = container_kill(killed, False)
    late = sigkill(time=format_rfc3339(int((KILL_S + 60) * 1e9)))
    ended = state(finished_at=format_rfc3339(int((KILL_S + 60.2) * 1e9)))
    verdict = judged([kill, late], "cart", "container", (ended,))
    assert (verdict["cause"], verdict["earlier"]) == ("sigkill", 1)
    assert verdict["runtime"] is not None
    assert (verdict["runtime"]["agrees"], verdict["runtime"]["note"]) == (False, "earlier")


def at(kill: OomKill, offset_s: float) -> OomKill:
    made = copy.deepcopy(kill)
    made["time"] = format_rfc3339(int((KILL_S + offset_s) * 1e9))
    made["incident"]["id"] = f"i{offset_s}"
    made["id"] = f"k{offset_s}"
    return made


def test_regular(killed: Killed) -> None:
    """Kills at regular intervals indicate a leak: no higher limit is advised."""
    (kill,) = killed("6.1-v1-memcg1", (b"/test", DOCKER))
    saw = [at(kill, -1800 * count + 20 * (count % 2)) for count in range(6, -1, -1)]
    verdict = judged(saw, ID, "container")
    assert verdict["history"] == {
        "total": 7,
        "last_day": 7,
        "first": saw[0]["time"],
        "last": saw[-1]["time"],
        "pause_s": pytest.approx(1800, abs=25),
        "regular": True,
        "pattern": "saw-tooth",
    }
    assert "they come regularly, every 30 minutes" in text(verdict)
    assert ["leak" in advice["text"] for advice in advise(verdict)] == [True]
    assert not any("docker update" in command for advice in advise(verdict) for command in advice["commands"])


def test_irregular(killed: Killed) -> None:
    """Irregular kills are not a leak: a quarter more is advised."""
    (kill,) = killed("6.1-v1-memcg1", (b"/test", DOCKER))
    kill["container"] = sigkill()["container"]
    found = [at(kill, offset) for offset in (-90000, -50000, -7000, -6000, 0)]
    verdict = judged(found, "cart", "container")
    assert (verdict["history"]["total"], verdict["history"]["last_day"]) == (5, 4)
    assert verdict["history"]["regular"] is False
    limit = kill["limit"]
    assert limit is not None
    new = -(-(limit["limit_bytes"] or 0) * 5 // 4 // MIB)
    commands = [command for advice in advise(verdict) for command in advice["commands"]]
    assert f"docker update --memory {new}m --memory-swap -1 cart" in commands, "the log says that swap is not limited"


@pytest.mark.parametrize("pause_s", [0.01, 0.5, 5])
def test_burst(killed: Killed, pause_s: float) -> None:
    """Regular kills within seconds are not a leak."""
    (kill,) = killed("6.1-v1-memcg1", (b"/test", DOCKER))
    verdict = judged([at(kill, -pause_s * count) for count in range(6, -1, -1)], ID, "container")
    assert verdict["history"]["regular"] is False
    assert verdict["history"]["pattern"] == "burst"
    assert not any("leak" in advice["text"] for advice in advise(verdict))
    assert "most in quick succession" in text(verdict)


@pytest.mark.parametrize(
    ("pauses", "pattern"),
    [
        ([3600] * 3, "too few"),
        ([3600] * 4, "saw-tooth"),
        ([3600] * 7 + [9 * 3600] + [3600] * 8, "saw-tooth"),
        ([1000, 1000, 1000, 3000, 9000, 30000], "irregular"),
        ([2, 3, 2, 86400, 1, 1, 2, 5, 1, 90000, 4, 2], "burst"),
    ],
)
def test_leak_is_what_the_report_calls_one(killed: Killed, pauses: list[int], pattern: str) -> None:
    """The answer and the report find the same pattern."""
    (kill,) = killed("6.1-v1-memcg1", (b"/test", DOCKER))
    kills = [at(kill, -float(offset)) for offset in reversed([0, *accumulate(reversed(pauses))])]
    verdict = judged(kills, ID, "container")
    collection = Collection()
    for tid, each in enumerate(kills):
        each["victim"]["tid"] = tid
        collection.add(each)
    (workload,) = workloads(collection.incidents())
    assert (verdict["history"]["pattern"], workload.regularity.pattern) == (pattern, pattern)
    assert verdict["history"]["pause_s"] == pytest.approx(workload.regularity.median_s, abs=1e-3)
    assert verdict["history"]["regular"] == (pattern == "saw-tooth")
    assert any("leak" in advice["text"] for advice in advise(verdict)) == (pattern == "saw-tooth")


def test_group_counts_once(killed: Killed) -> None:
    """All victims of one incident count as one kill."""
    group = killed("7.2-group")
    incidents = {kill["incident"]["id"] for kill in group}
    assert len(incidents) < len(group)
    assert summarize_history(group, NOW_S)["total"] == len(incidents)


def test_process_means_the_last(killed: Killed) -> None:
    """Each process of a name has its own end; for a container that of its init counts."""
    (kill,) = killed("6.1-v1-memcg1", (b"/test", DOCKER))
    first, last = at(kill, 0), at(kill, 2)
    first["victim"]["is_container_init"], last["victim"]["is_container_init"] = True, False
    assert judged([first, last])["kill"] == last
    assert judged([first, last], ID, "container")["kill"] == first
    assert last["container"] is not None
    last["container"]["id"] = "0" * 64
    assert judged([first, last], ID, "container")["kill"] == last


def test_small_victim_and_no_breakdown(killed: Killed) -> None:
    """Advice to look at the memory precedes advice to raise the limit."""
    (kill,) = killed("6.1-v1-memcg1", (b"/test", DOCKER))
    assert kill["limit"] is not None
    kill["limit"]["breakdown"] = None
    kill["victim"]["rss_bytes"] = MIB
    advice = advise(judged([kill], ID, "container"))
    assert "as the victim had little of it" in advice[0]["text"]
    assert "raise the limit" in advice[1]["text"]


def test_hostile_names(killed: Killed) -> None:
    """Any name is printable text for the terminal, and one word for the shell."""
    (kill,) = killed("6.1-v1-memcg1", (b"/test", DOCKER))
    evil = "x\x1b[31m\n$(reboot); 'y"
    record = sigkill()
    assert record["container"] is not None
    kill["container"] = {**record["container"], "name": evil}
    kill["victim"]["comm"] = evil
    verdict = judged([kill], evil, "container")
    shown = [*explain_verdict(verdict), *(command for advice in advise(verdict) for command in advice["commands"])]
    assert all(line.isprintable() for line in shown)
    commands = [command for advice in advise(verdict) for command in advice["commands"]]
    assert any("'x\\x1b[31m\\n$(reboot); '\"'\"'y'" in command for command in commands)


@pytest.mark.parametrize("name", ["--kubeconfig=x", "-A", "a b", "Web", "a..b", "x" * 254, "web\n", "é"])
def test_no_kubernetes_name(killed: Killed, name: str) -> None:
    """A name that is invalid in Kubernetes may be an option: no command has it; valid names have one."""
    (kill,) = killed("6.1-v1-nested", (b"/outer/inner", POD + f"/{ID}".encode()), (b"/outer", POD))
    record = sigkill(kubernetes=kill["kubernetes"])
    for pod, namespace, count in ((name, "shop", 0), ("web-0.a", name, 0), ("web-0.a", "shop", 1), ("web-0", None, 1)):
        assert kill["kubernetes"] is not None
        kill["kubernetes"].update({"pod_name": pod, "namespace": namespace})
        ended = judged([], f"{namespace}/{pod}" if namespace else pod, "pod", exit_code=1)
        for verdict in (judged([kill], "x", "pod"), judged([record], "x", "pod"), ended):
            commands = [command for advice in advise(verdict) for command in advice["commands"]]
            assert sum("kubectl" in command for command in commands) == count
            assert all(name not in command for command in commands) or not count


def test_container_called_like_an_option(killed: Killed) -> None:
    """Docker's commands have the container's id."""
    kill = container_kill(killed, True)
    assert kill["container"] is not None
    kill["container"].update({"name": "--all", "runtime": "docker"})
    commands = [command for advice in advise(judged([kill], ID, "container")) for command in advice["commands"]]
    assert any(command.endswith(f" {ID}") for command in commands if "docker update" in command)
    assert not any("--all" in command for command in commands if "docker" in command)
    ended = judged([], "--all", "container", (state(exit_code=1, finished_at=None),))
    assert [each["commands"] for each in advise(ended)] == [[]]


def line_of(record: Any, **changed: Any) -> bytes:
    return json.dumps({**record, **changed}).encode()


def test_damaged_file(tmp_path: Path) -> None:
    """Lines that are not records are counted and reported; the rest is used."""
    file = tmp_path / "records.json"
    file.write_bytes(b"\n".join([line_of(sigkill()), b"{", b"\xff\xfe", line_of(sigkill(id="2", seq=4)), b'{"type":']))
    read = sources.read_sources([str(file), str(tmp_path / "missing")], [], no_names, lambda _kill: True, HOST)
    assert sum(each.source == str(file) for each in read.found) == 2
    problems = "\n".join(read.problems)
    assert f"{file}: 3 lines are not oomtrace records" in problems
    assert f"cannot read {tmp_path}/missing" in problems
    assert SearchedSource(str(file), AT, is_given=True) in read.searched
    assert Coverage(AT, None, "containers") in read.coverages


def test_unread_log_tells_nothing(tmp_path: Path) -> None:
    """Only a log that could be read is reported as having no kill."""
    log = tmp_path / "kern.log"
    log.write_bytes(b"Nov 24 03:51:53 h kernel: [    1.000000] Linux\n")
    read = sources.read_sources(
        [], [str(log), str(tmp_path), str(tmp_path / "missing")], no_names, lambda _kill: True, HOST
    )
    assert [each.source for each in read.searched if each.source.startswith("log ")] == [f"log {log}"]
    assert sum(f"cannot read {tmp_path}" in problem for problem in read.problems) == 2


def test_exit_belongs_to_its_kill(killed: Killed, tmp_path: Path) -> None:
    """An oom_exit record is joined with its kill; gaps and losses are counted."""
    (kill,) = killed("6.1-v1-memcg1")
    base = {"schema": 1, "seq": 0, "host": HOST, "time": AT}
    gap = {**base, "type": "gap", "since": None, "oom_kills": 5, "records": 3, "missing": 2, "cgroups": []}
    lost = {**base, "type": "lost", "stage": "ring_buffer", "count": 3, "since": AT}
    file = tmp_path / "records.json"
    file.write_bytes(b"\n".join(line_of(each) for each in (kill, exit_of(kill, True), gap, lost)))
    read = sources.read_sources([str(file)], [], no_names, lambda _kill: True, HOST)
    (found,) = [each for each in read.found if each.source == str(file)]
    assert found.exit is not None
    assert found.exit["container_init_died"] is True
    assert [each.missing for each in read.searched if each.source == str(file)] == [5]
    verdict = judge(Target("x", (), ("process",)), "process", [], read.coverages, 5, None, NOW_S)
    assert "5 kills of that time have no record" in text(verdict)


def test_exit_in_another_file(killed: Killed, tmp_path: Path) -> None:
    """Rotation may separate a kill from its exit; the newer file is read first; exits of other hosts do not count."""
    kill = container_kill(killed, False)
    other = exit_of(kill, False)
    other["host"] = {**HOST, "name": "other", "boot_id": None}
    newer, older, foreign = tmp_path / "oom.json", tmp_path / "oom.json.1", tmp_path / "oom.json.2"
    older.write_bytes(line_of(kill))
    newer.write_bytes(line_of(exit_of(kill, True)))
    foreign.write_bytes(line_of(other))
    read = sources.read_sources(
        [str(newer), str(older), str(foreign)], [], no_names, lambda each: each["id"] == kill["id"], HOST
    )
    (found,) = read.found
    assert found.exit == exit_of(kill, True)
    said = text(judged([found], "cart", "container"))
    assert "ended by itself, after a process in it was OOM killed" in said
    read = sources.read_sources([str(older), str(foreign)], [], no_names, lambda each: each["id"] == kill["id"], HOST)
    assert "kept running" not in text(judged(read.found, "cart", "container"))
    assert "is not on record" in text(judged(read.found, "cart", "container"))


def test_hosts_with_the_same_thread(killed: Killed) -> None:
    """The same thread and time on two hosts, or with another name, are two kills."""
    (kill,) = killed("6.1-v1-memcg1", (b"/test", DOCKER))
    others = [copy.deepcopy(kill), copy.deepcopy(kill)]
    others[0]["host"] = {**HOST, "name": "other", "boot_id": None}
    others[1]["victim"]["comm"] = "other"
    others[1]["id"] = "another"
    _, found, _ = search.select_kills([FoundKill(each, "test") for each in (kill, *others)], Target(ID, (), ()))
    assert len(found) == 3
    assert judged(found, ID, "container")["history"]["total"] == 2


def test_command(tmp_path: Path, killed: Killed) -> None:
    """The command reads records, and answers in text and in JSON."""
    (kill,) = killed("5.10-memcg2", (b"/test", DOCKER))
    file = tmp_path / "records.json"
    file.write_bytes(line_of(kill) + b"\n")
    finished = oomtrace("why", ID, "--records", str(file), "--runtime-root", f"docker={tmp_path}")
    assert finished.returncode == 0
    assert (
        f"In container {ID} a process was OOM killed at 2027-01-15 08:00:00 UTC, by its own limit of" in finished.stdout
    )
    assert f"oom_kill {kill['id']}, {file}" in finished.stdout
    told_ = json.loads(oomtrace("why", ID[:12], "--records", str(file), "--json").stdout)
    assert told_["verdict"]["cause"] == "own_limit"
    assert told_["verdict"]["kill"]["id"] == kill["id"]
    assert [each["source"] for each in told_["evidence"]] == [str(file)]


def test_container_called_like_a_unit(tmp_path: Path, killed: Killed) -> None:
    """The answer names the other owner, with a command that selects it; a full unit name is unambiguous."""
    (of_unit,) = killed("5.10-memcg2", (b"/test", UNIT))
    (of_container,) = killed("6.1-v1-memcg1", (b"/test", DOCKER))
    assert of_container["container"] is not None
    records, folder = tmp_path / "records.json", tmp_path / "containers" / ID
    folder.mkdir(parents=True)

    def ask(name: str, called: str) -> Any:
        assert of_container["container"] is not None
        of_container["container"]["name"] = called
        records.write_bytes(line_of(of_unit) + b"\n" + line_of(of_container) + b"\n")
        running = {"Running": True, "OOMKilled": False, "ExitCode": 0, "FinishedAt": "0001-01-01T00:00:00Z"}
        (folder / "config.v2.json").write_text(json.dumps({"Name": f"/{called}", "State": running}))
        command = ["why", name, "--records", str(records), "--runtime-root", f"docker={tmp_path}"]
        told_ = oomtrace(*command).stdout
        found = json.loads(oomtrace(*command, "--json").stdout)
        assert found["sentences"] == told_.partition("\n\n")[0].splitlines()
        return found

    told_ = ask("mail", "mail")
    assert (told_["verdict"]["kind"], [each["id"] for each in told_["evidence"]]) == ("container", [of_container["id"]])
    assert told_["sentences"][-1] == (
        "Others with that name, not counted here: unit mail.service: once (oomtrace why unit:mail.service)."
    )
    for called in ("mail", "mail.service", "unit:mail.service"):
        for name in (told_["others"][0]["ask"], "mail.service"):
            of = ask(name, called)
            assert (of["verdict"]["kind"], [each["id"] for each in of["evidence"]]) == ("unit", [of_unit["id"]])
    of = ask("container:mail.service", "mail.service")
    assert (of["verdict"]["kind"], [each["id"] for each in of["evidence"]]) == ("container", [of_container["id"]])


@pytest.mark.parametrize("output", ["stdout", "stdout, a long record", "journald"])
def test_journal(output: str, tmp_path: Path, killed: Killed) -> None:
    """Records are found in the journal, by the real journalctl, among other messages of the unit."""
    remote, machine = Path("/lib/systemd/systemd-journal-remote"), Path("/etc/machine-id")
    require(remote.exists() and shutil.which("journalctl"), "systemd-journal-remote and journalctl")
    require(machine.exists() and Path("/run/log").is_dir(), "a machine id, and a place for journals")
    (kill,) = killed("5.10-memcg2", (b"/test", DOCKER))
    if output == "stdout, a long record":
        kill["victim"]["cmdline"] = ["x" * 9000]
    of_kill = journal_entry(line_of(kill)) if output == "journald" else b"MESSAGE=%s\n" % line_of(kill)
    entries = []
    for number, (unit, fields) in enumerate(
        [
            ("cron", b"MESSAGE=%s\n" % line_of(kill, id="no")),
            ("oomtrace", b"MESSAGE=Started oomtrace.service.\n"),
            ("oomtrace", of_kill),
            ("oomtrace", b"MESSAGE=oomtrace: attached\n"),
        ]
    ):
        head = f"__REALTIME_TIMESTAMP={int(KILL_S) * 1_000_000 + number}\n__MONOTONIC_TIMESTAMP={number + 1}\n"
        entries.append(f"{head}_BOOT_ID={'1' * 32}\n_SYSTEMD_UNIT={unit}.service\n".encode() + fields)
    file = tmp_path / "system.journal"
    subprocess.run([remote, "-o", file, "-"], input=b"\n".join(entries), check=True, capture_output=True)
    folder = f"/run/log/journal/{machine.read_text().strip()}"
    script = f'mount -t tmpfs tmpfs /run/log && mkdir -p {folder} && cp "$0" {folder}/ && exec "$@"'
    wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(file)]
    finished = oomtrace("why", ID, "--json", wrapper=wrapper)
    assert finished.returncode == 0, finished.stderr
    evidence = json.loads(finished.stdout)["evidence"]
    assert [(each["source"], each["id"]) for each in evidence] == [("journal", kill["id"])]


def test_unknown(tmp_path: Path) -> None:
    """An unknown name is an error of one line that lists the sources."""
    file = tmp_path / "records.json"
    file.write_bytes(line_of(sigkill()) + b"\n")
    check_refusal(oomtrace("why", "9" * 5000, "--records", str(file), stderr=-1), 1)
    refused = check_refusal(oomtrace("why", "no\nsuch", "--records", str(file), stderr=-1), 1).splitlines()
    assert re.match(r"oomtrace: nothing is known of 'no\\nsuch': looked in ", refused[-1])
    assert str(file) in refused[-1]
    assert "the runtimes' files" in refused[-1]


def test_runs(tmp_path: Path) -> None:
    """A running target without kills is reported as running."""
    (tmp_path / "records.json").touch()
    own = Path("/proc/self/stat").read_text().split()[0]
    told_ = oomtrace("why", "1", "--records", str(tmp_path / "records.json"))
    assert own.isdecimal()
    assert told_.returncode == 0
    assert "Process 1 is running, and no kill of it is on record." in told_.stdout


@pytest.mark.parametrize(
    ("told_", "expected"),
    [
        ("2027-01-15T09:00:00.5+01:00", "2027-01-15T08:00:00.500000000Z"),  # podman, CRI-O
        ("2027-01-15T08:00:00.123456789Z", "2027-01-15T08:00:00.123456789Z"),  # Docker
        (1_800_000_000_000_000_017, "2027-01-15T08:00:00.000000017Z"),  # containerd
        ("0001-01-01T00:00:00Z", None),  # Go's zero time
        ("soon", None),
        (0, None),
        (-5, None),
        (1 << 80, None),
        (None, None),
    ],
)
def test_utc(told_: str | int | None, expected: str | None) -> None:
    """The end of a container, in the formats of the runtimes."""
    assert expected == to_rfc3339(told_)


def test_moments() -> None:
    """Times are parsed as they are written; invalid ones are not."""
    assert unix_seconds(format_rfc3339(1_800_000_000_500_000_000)) == 1_800_000_000.5
    assert unix_seconds("2027-01-15T08:00:00Z") == 1_800_000_000
    assert [unix_seconds(bad) for bad in (None, "", "soon", "2027-13-15T08:00:00Z", "2027-01-15T08:00:00+01:00")] == [
        None
    ] * 5
    assert format_time("2027-01-15T08:00:00.1Z") == "2027-01-15 08:00:00 UTC"
    assert [format_span(length) for length in (0.2, 1, 89, 100, 7200, 200000)] == [
        "less than a second",
        *("1 second", "89 seconds", "2 minutes", "2 hours", "2 days"),
    ]
    assert [format_size(count) for count in (0, 1023, 1536, 64 * MIB, 5 << 40)] == [
        *("0 B", "1023 B", "1.5 KiB", "64.0 MiB", "5.0 TiB"),
    ]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a record."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@pytest.mark.parametrize("log", ["6.1-v1-memcg1", "6.12-tmpfs", "6.12-global", "sigkill"])
def test_any_record(log: str, killed: Killed) -> None:
    """With any value in a field, a line is either not a record or answered; no exception is raised."""
    whole_record: Any = sigkill() if log == "sigkill" else killed(log)[0]
    changes_of = st.tuples(st.sampled_from(list(places(whole_record))), JSON_VALUES)

    @settings(max_examples=300, deadline=None)
    @given(st.lists(changes_of, min_size=1, max_size=3), st.sampled_from(KINDS))
    def check(changes: list[tuple[tuple[Any, ...], Any]], kind: Kind) -> None:
        record = copy.deepcopy(whole_record)
        for path, value in changes:
            owner = record
            for key in path[:-1]:
                try:
                    owner = owner[key]
                except (KeyError, IndexError, TypeError):  # replaced by an earlier change
                    return
            if path and isinstance(owner, dict):
                owner[path[-1]] = value
        try:
            read = RECORDS.read(line_of(record))
        except InvalidRecordError:
            return
        if read is None or (read["type"] != "oom_kill" and read["type"] != "sigkill"):
            return
        target = Target("cart", (state(),), ())
        search.first_kind(read, target)
        _, found, _ = search.select_kills([FoundKill(read, "a"), FoundKill(copy.deepcopy(read), "b")], target)
        for each in (found, [FoundKill(read, "a")]):
            verdict = judged(each, "cart", kind, (state(),))
            assert all(sentence.isprintable() for sentence in explain_verdict(verdict))
            assert all(command.isprintable() for advice in advise(verdict) for command in advice["commands"])

    check()
