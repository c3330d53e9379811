# SPDX-License-Identifier: Apache-2.0
"""The examples in docs/why.md are the answers to these records and files of Docker."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.records import ROOT, shown
from tests.harness.schema import validate
from tracer.commands.why import why
from tracer.records.host import read_host
from tracer.why import sources

from .test_verdict import sigkill

RECORDS = "/var/log/oomtrace/oom.json"
IDS = {"cart": "c0" * 32, "shop": "5b" * 32, "web": "7a2ef0e55c37" + "0" * 52, "batch": "ba" * 32}
MIB = 1 << 20


def examples() -> list[tuple[str, str]]:
    """Names, and the answers in the page."""
    page = (ROOT / "docs" / "why.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    return [
        (command.removeprefix("oomtrace why "), answer.strip("\n"))
        for block in blocks
        for command, _, answer in (example.partition("\n") for example in block.split("$ oomtrace why ")[1:])
    ]


def at(clock: str) -> str:
    return f"2026-11-26T{clock}Z"


def kill(name: str, clock: str, pid: int, is_init: bool, victim: dict[str, Any], others: int) -> dict[str, Any]:
    record = shown()
    path = f"/docker/{IDS[name]}"
    limit = {"usage_bytes": 64 * MIB, "limit_bytes": 64 * MIB, "cgroup": path}
    record["limit"].update(limit, swap_usage_bytes=0, swap_limit_bytes=0)
    record["limit"]["breakdown"].update(anon_bytes=66_691_072, kernel_bytes=400 << 10, slab_bytes=0)
    record["victim"].update(pid=pid, tid=pid, comm="dd", is_container_init=is_init, cgroup=path, **victim)
    record["candidates"] = [
        {"pid": pid + n, "comm": "dd" if n == 0 else "sh", "points": 9000 // (n + 1), "rss_bytes": MIB >> n,
         "oom_score_adj": 0}
        for n in range(others + 1)
    ]  # fmt: skip
    record["candidates"][0]["rss_bytes"] = record["victim"]["rss_bytes"]
    record["trigger"].update(pid=pid, tid=pid, comm="dd", cgroup=path)
    record["container"].update(id=IDS[name], name=name, labels={})
    return {**record, "id": f"146b2346-35457aa7dd8-{pid}", "time": at(clock), "systemd": None,
            "candidates_scored": others + 1}  # fmt: skip


def records() -> Iterator[dict[str, Any]]:
    start = {"schema": 1, "type": "start", "version": "1.0.0", "source": "bpf", "engine": "core", "hooks": [],
             "pinned": True, "oom_kills": 0}  # fmt: skip
    yield {**start, "time": at("13:40:35.000000000"), "adopted": False, "sigkill": "containers"}
    size = {"rss_bytes": int(65.1 * MIB), "file_rss_bytes": 2 * MIB, "started_at": at("13:40:38.300000000")}
    yield kill("cart", "13:40:39.500000000", 26279, True, size, 0)
    child = kill("shop", "13:40:40.500000000", 26463, False, size, 1)
    yield child
    yield {"schema": 1, "type": "oom_exit", "id": child["id"], "incident_id": child["incident"]["id"], "pid": 26463,
           "time": at("13:40:40.600000000"), "after_ns": 100_000_000, "container_init_died": False,
           "runtime_verdict": None}  # fmt: skip
    sent: dict[str, Any] = {**sigkill(time=at("13:40:46.700000000"), id="146b2346-35457aa8000-26634")}
    sent["victim"].update(pid=26634, tid=26634, comm="sleep", cgroup=f"/docker/{IDS['web']}")
    sent["container"].update(id=IDS["web"], name="web")
    sent["sender"].update(pid=26733, tid=26733, cgroup="/", systemd=None)
    yield sent


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that oomtrace and Docker have written."""
    folder, host = tmp_path_factory.mktemp("why"), read_host()
    lines = [{**record, "seq": seq, "host": host} for seq, record in enumerate(records())]
    for line in lines:
        validate(line)
    (folder / "oom.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    states = {
        "cart": (False, True, 137, at("13:40:39.700000000")),
        "shop": (True, False, 0, "0001-01-01T00:00:00Z"),
        "web": (False, False, 137, at("13:40:46.800000000")),
        "batch": (False, False, 137, at("13:40:41.500000000")),
    }
    for name, (is_running, is_oom_killed, exit_code, finished_at) in states.items():
        container = folder / "docker" / "containers" / IDS[name]
        container.mkdir(parents=True)
        state = {"Running": is_running, "OOMKilled": is_oom_killed, "ExitCode": exit_code, "FinishedAt": finished_at}
        (container / "config.v2.json").write_text(json.dumps({"Name": f"/{name}", "State": state}))
    return folder


def test_all_are_run() -> None:
    """Every example is tested."""
    page = (ROOT / "docs" / "why.md").read_text()
    assert [name for name, _ in examples()] == re.findall(r"^\$ oomtrace why (\S+)$", page, re.MULTILINE)
    assert {name for name, _ in examples()} == set(IDS)


@pytest.mark.parametrize(("name", "expected"), examples())
def test_example(
    name: str, expected: str, machine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is in the page word for word; three dots stand for omitted text."""
    monkeypatch.setattr(sources, "_oldest_line", lambda: at("13:39:17.000000000"))  # not this machine's kernel log
    path = str(machine / "oom.json")
    why(name, None, [path], [], False, [f"docker={machine}/docker"])  # type: ignore[arg-type]
    said = capsys.readouterr().out.replace(path, RECORDS).strip("\n")
    if "Evidence:" not in expected:
        said = said.partition("\n\nEvidence:\n")[0]
    before, dots, after = expected.partition("\n...\n")
    if not dots:
        assert said == expected
    else:
        assert said.startswith(f"{before}\n")
        assert f"\n{after}" in said
