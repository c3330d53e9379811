# SPDX-License-Identifier: Apache-2.0
"""Sentences about records with more detail than a log has, and about sources from the command line."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness.environment import MIB
from tests.harness.records import HOST, shown
from tests.unit.commands.test_cli import oomtrace
from tracer.records.conclusions import page_bytes, trigger_role
from tracer.records.model import NO_LIMIT_BYTES, OomKill
from tracer.records.owner import Container
from tracer.records.summary import describe_kill
from tracer.why.advice import advise

from .test_answers import path_of
from .test_verdict import DOCKER, ID, Killed, judged, kills, line_of, text

GIB = 1 << 30


@pytest.fixture
def killed(tmp_path: Path) -> Killed:
    (tmp_path / "none.json").touch()
    return lambda log, *replaced: kills(log, *replaced, tmp=tmp_path)


@pytest.fixture
def record() -> OomKill:
    """The real record in docs/record.md."""
    made: OomKill = shown()
    made["host"] = HOST
    return made


def container(**changed: Any) -> Container:
    made: Container = {
        "id": ID, "runtime": "docker", "name": "cart", "image": None, "labels": None, "node_container_id": None,
        "ip_addresses": None,
    }  # fmt: skip
    return {**made, **changed}  # type: ignore[typeddict-item]


def commands(verdict: Any) -> list[str]:
    return [command for advice in advise(verdict) for command in advice["commands"]]


def of_docker(killed: Killed, swap_limit: int | None, **changed: Any) -> OomKill:
    """A kill in a container with a limit of 30 MiB."""
    (kill,) = killed("5.10-memcg2", (b"/test", DOCKER))
    assert kill["limit"] is not None
    kill["limit"]["swap_limit_bytes"] = swap_limit
    kill["container"] = container(**changed)
    return kill


@pytest.mark.parametrize(
    ("swap_limit", "both"), [(0, "38m"), (30 * MIB, "68m"), (8 * MIB + 1, "47m"), (NO_LIMIT_BYTES, "-1")]
)
def test_swap_is_kept(killed: Killed, swap_limit: int, both: str) -> None:
    """A container keeps its swap: memory+swap is raised together with memory."""
    kill = of_docker(killed, swap_limit)
    command = f"docker update --memory 38m --memory-swap {both} cart"
    assert command in commands(judged([kill], "cart", "container"))
    assert kill["limit"] is not None
    if swap_limit == 30 * MIB:  # cgroup v1 has it as one limit
        kill["limit"].update({"swap_limit_bytes": None, "memsw_limit_bytes": 60 * MIB})
        assert command in commands(judged([kill], "cart", "container"))


def test_unknown_swap(killed: Killed) -> None:
    """If the swap is unknown, the command that shows it comes first."""
    first, second, *_ = commands(judged([of_docker(killed, None)], "cart", "container"))
    assert first == "docker inspect --format '{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}' cart"
    assert second == "docker update --memory 38m --memory-swap 38m cart  # plus the swap that it had"


@pytest.mark.parametrize(
    ("labels", "where"),
    [
        (
            {"com.docker.compose.service": "cart", "com.docker.compose.project.config_files": "/srv/shop/compose.yaml"},
            "Set mem_limit (or deploy.resources.limits.memory) of service cart in /srv/shop/compose.yaml, too: "
            "docker update is lost when Compose re-creates the container.",
        ),
        (
            {"com.docker.compose.service": "cart"},
            "Set mem_limit (or deploy.resources.limits.memory) of service cart in the Compose file, too: docker update "
            "is lost when Compose re-creates the container.",
        ),
        (
            {"PODMAN_SYSTEMD_UNIT": "cart.service"},
            "Set it in cart.service, too: docker update is lost when the unit re-creates the container.",
        ),
    ],
)
def test_what_makes_it_anew(killed: Killed, labels: dict[str, str], where: str) -> None:
    """A limit set by hand does not survive re-creation; the file or unit that creates the container has it."""
    verdict = judged([of_docker(killed, 0, labels=labels)], "cart", "container")
    (raised,) = [advice["text"] for advice in advise(verdict) if "raise the limit" in advice["text"]]
    assert raised.endswith(f"check again afterwards. {where}")


def test_swarm(killed: Killed) -> None:
    """A Swarm service is updated, not its container."""
    kill = of_docker(killed, 0, labels={"com.docker.swarm.service.name": "shop_cart"})
    assert commands(judged([kill], "cart", "container"))[0] == "docker service update --limit-memory 38M shop_cart"


def test_kubernetes(killed: Killed) -> None:
    """The limits are in the owner of the pod, with any runtime."""
    (kill,) = killed(
        "5.10-memcg2", (b"/test", f"/kubepods/burstable/pod2c48913c-b29f-11e7-9350-020968147796/{ID}".encode())
    )
    assert kill["kubernetes"] is not None
    kill["container"] = container(labels={"com.docker.compose.service": "no"})
    kill["kubernetes"].update({"pod_name": "cart-0", "namespace": "shop"})
    verdict = judged([kill], "cart", "container")
    assert commands(verdict)[0] == "kubectl -n shop describe pod cart-0  # Controlled By, Limits"
    assert (
        "Set resources.limits.memory in the pod's owner (Deployment, StatefulSet, ...)." in advise(verdict)[0]["text"]
    )
    assert "docker" not in json.dumps(advise(verdict))


def test_lowered_by_somebody(killed: Killed) -> None:
    """Records of the BPF programs have the trigger's cgroup: a process that lowers the limit is outside of it."""
    (kill,) = killed("7.2-shrink", (b"/shr", DOCKER))
    assert kill["trigger"] is not None
    kill["trigger"].update({"pid": 755, "cgroup": "/system.slice/ssh.service"})
    verdict = judged([kill], ID, "container")
    said = text(verdict)
    assert "by its own limit, as it was lowered to 20.0 MiB while 50.1 MiB were in use." in said
    assert "sh (pid 755), outside of that cgroup, lowered the limit." in said
    assert verdict["memory"] is not None
    assert verdict["memory"]["is_lowered"] is True
    assert describe_kill(kill) == (
        f"The kernel killed hog-shrunk (pid 760, container {ID[:12]}), 50 MiB resident, because the limit of the "
        f"container cgroup /docker/{ID} was lowered by sh (pid 755) to 20 MiB while 50 MiB were in use."
    )


@pytest.mark.parametrize(
    ("usage", "cgroup", "role"),
    [
        (20 * MIB, "/shr", "requester"),
        (20 * MIB, "/shr/below", "requester"),
        (20 * MIB, "/shrew", "outsider"),
        (20 * MIB + 4096, "/shr", "requester"),
        (20 * MIB + 4096, "/other", "writer"),
        (24 * MIB, "/shr", "requester"),
        (24 * MIB, None, None),
    ],
)
def test_trigger_role(killed: Killed, usage: int, cgroup: str | None, role: str | None) -> None:
    """Charges may exceed the limit slightly; usage far above it, or a request from outside, means a lowered limit."""
    (kill,) = killed("7.2-shrink")
    assert kill["trigger"] is not None
    assert kill["limit"] is not None
    kill["limit"]["usage_bytes"], kill["trigger"]["cgroup"] = usage, cgroup
    assert role == trigger_role(kill)
    assert ("was lowered" in describe_kill(kill)) == (usage > 22 * MIB or role == "writer")
    assert ("requested more memory" in describe_kill(kill)) == ("was lowered" not in describe_kill(kill))


def test_unknown_trigger(killed: Killed) -> None:
    """An unknown pid is not shown, and the trigger is not called another process than the victim."""
    (kill,) = killed("6.1-thread")
    assert kill["trigger"] is not None
    kill["trigger"].update({"pid": None, "tid": None})
    said = text(judged([kill]))
    assert "hog-thread requested the memory." in said
    assert "None" not in said
    kill["trigger"]["comm"] = kill["victim"]["comm"] or ""
    assert "requested the memory" not in text(judged([kill])), "it may be the victim"
    kill["victim"]["pid"] = kill["trigger"]["pid"] = None
    kill["victim"]["tid"] = kill["trigger"]["tid"] = 7
    assert "requested the memory" not in text(judged([kill]))


def test_highest_score(record: OomKill) -> None:
    """The BPF programs record the kernel's own scores."""
    record["candidates_scored"] = 37
    verdict = judged([record])
    assert verdict["choice"] == {"by": "score", "other": None, "of": 37}
    assert ", with the highest score of 37 candidates" in text(verdict)
    assert record["candidates"] is not None
    record["candidates"].append({"pid": 9, "comm": "db", "points": 5, "rss_bytes": 4 * GIB, "oom_score_adj": -900})
    record["victim"]["oom_score_adj"] = 1000
    assert (
        ", for its oom_score_adj of 1000: db (pid 9), with 4.0 GiB resident and an oom_score_adj of -900, was spared."
        in text(judged([record]))
    )


@pytest.mark.parametrize("page", [4096, 16384, 65536])
@pytest.mark.parametrize("adjusted", [0, 300, -200])
def test_host_size(record: OomKill, page: int, adjusted: int) -> None:
    """The host's total is recorded in pages, whose size follows from the victim's score."""
    victim, incident, pages = record["victim"], record["incident"], 8 * GIB // page
    victim["rss_bytes"], victim["swap_bytes"], victim["page_tables_bytes"] = 4 * GIB, MIB, 8 * MIB
    victim["oom_score_adj"] = adjusted
    victim["points"] = (4 * GIB + 9 * MIB) // page + adjusted * (pages // 1000) + 3
    incident["scope"], incident["total_pages"], incident["group_kill"] = "host", pages, False
    record["limit"] = None
    record["candidates"] = [
        {
            "pid": victim["pid"] or 0,
            "comm": "a",
            "points": victim["points"],
            "rss_bytes": 4 * GIB,
            "oom_score_adj": adjusted,
        },
        {"pid": 7, "comm": "db", "points": 9, "rss_bytes": 3 * GIB, "oom_score_adj": 0},
    ]
    assert page_bytes(record) == page
    said = text(judged([record]))
    assert "had 4.0 GiB resident and 1.0 MiB in swap. The largest others: db (pid 7) 3.0 GiB." in said
    assert "The host has 8.0 GiB of RAM and swap." in said
    victim["points"] = None
    assert "RAM" not in text(judged([record]))


def test_given_log_comes_first(tmp_path: Path, killed: Killed) -> None:
    """A log that the user names is of that log's host: this machine's kills of that name do not count, if they have
    dates and are later, too; without one in it the answer is about this machine, and that is said.
    """
    own = killed("5.10-memcg2")[0]
    own["time"] = "2026-11-30T10:00:00.000000000Z"
    records = tmp_path / "oom.json"
    records.write_bytes(line_of(own) + b"\n")
    log = path_of("6.1-memcg2")
    script = 'mount -t tmpfs tmpfs /var/log && mkdir /var/log/oomtrace && cp "$0" /var/log/oomtrace/ && exec "$@"'
    wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(records)]
    answer = json.loads(oomtrace("why", "hog", "--log", str(log), "--json", wrapper=wrapper).stdout)
    assert [each["source"] for each in answer["evidence"]] == [f"log {log}"]
    assert answer["verdict"]["history"]["total"] == 1
    assert (answer["verdict"]["time"], answer["verdict"]["uptime_s"]) == (None, answer["evidence"][0]["uptime_s"])
    other = path_of("7.2-swap")
    finished = oomtrace("why", "hog", "--log", str(other), "--json", wrapper=wrapper)
    assert [each["source"] for each in json.loads(finished.stdout)["evidence"]] == ["/var/log/oomtrace/oom.json"]
    assert f"oomtrace: no kill of 'hog' in {other}; the answer is about this machine\n" in finished.stderr


def test_given_log_before_containers(killed: Killed, tmp_path: Path) -> None:
    """A process in another host's log is not this machine's container of the same name."""
    folder = tmp_path / "containers" / ID
    folder.mkdir(parents=True)
    ended = {"Running": False, "OOMKilled": False, "ExitCode": 3, "FinishedAt": "2027-01-15T08:00:00.5Z"}
    (folder / "config.v2.json").write_text(json.dumps({"Name": "/hog", "State": ended}))
    (tmp_path / "none.json").touch()
    asked = ("why", "hog", "--runtime-root", f"docker={tmp_path}", "--records", str(tmp_path / "none.json"), "--json")
    assert json.loads(oomtrace(*asked).stdout)["verdict"]["kind"] == "container"
    verdict = json.loads(oomtrace(*asked, "--log", str(path_of("6.1-memcg2"))).stdout)["verdict"]
    assert (verdict["kind"], verdict["cause"], verdict["runtime"]) == ("process", "own_limit", None)


def test_given_log_with_records(killed: Killed, tmp_path: Path) -> None:
    """Details that records have of the same kill are used."""
    (kill,) = killed("6.1-sysrq")
    logged = copy.deepcopy(kill)
    file = tmp_path / "oom.json"
    kill["source"], kill["id"] = "bpf", logged["id"]
    kill["victim"]["cmdline"] = ["hog", "50"]
    file.write_bytes(line_of(kill))
    answer = json.loads(
        oomtrace("why", "hog-sysrq", "--records", str(file), "--log", str(path_of("6.1-sysrq")), "--json").stdout
    )
    assert len(answer["evidence"]) == 1
    assert answer["verdict"]["kill"]["victim"]["cmdline"] == ["hog", "50"]


def test_evidence_since_boot() -> None:
    """For a log without dates, answer and evidence have the time since boot."""
    log = path_of("7.2-memcg2")
    said = oomtrace("why", "hog", "--log", str(log)).stdout
    uptime = next(line for line in log.read_text().splitlines() if "Killed process" in line)[1:].split("]")[0].strip()
    assert f"Process hog was OOM killed {float(uptime):.2f} s after boot, by" in said
    assert said.rstrip().splitlines()[-1].startswith(f"    {float(uptime):.2f} s after boot  oom_kill ")
    assert "unknown time" not in said
    parsed = oomtrace("parse", "--sentence", str(log)).stdout
    assert parsed.startswith(f"{float(uptime):.2f} s after boot: The kernel killed hog (pid ")


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "6.12-group",
            "hog-bystander1 (pid 264), 5756 KiB resident, with its whole cgroup (memory.oom.group), because the cgroup "
            "/grp was at its limit of 60 MiB when hog-main (pid 267) requested more memory.",
        ),
        (
            "6.12-alloctask",
            "because the host had no memory left when it requested more memory; vm.oom_kill_allocating_task is set.",
        ),
        ("6.1-cpuset", "because the memory nodes of a cpuset had no memory left when it requested more memory."),
        ("6.1-policy", "because the memory nodes of a memory policy had no memory left when it requested more memory."),
        ("7.2-shrink", "because the limit of the cgroup /shr was lowered to 20 MiB while 50 MiB were in use."),
        ("6.1-sysrq", "because SysRq-f requested it."),
    ],
)
def test_sentence(log: str, said: str) -> None:
    """The sentence of reports, messages and `parse --sentence` has the reason."""
    assert said in oomtrace("parse", "--sentence", str(path_of(log))).stdout
