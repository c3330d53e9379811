# SPDX-License-Identifier: Apache-2.0
"""A container makes cgroups whose path is too deep or too long: the owner is still the container."""

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.environment import attempts
from tests.harness.oracles import Record
from tracer.records.owner import owner_of

from .conftest import Eat, MakeDaemon

OWN, OTHER = secrets.token_hex(32), secrets.token_hex(32)
BELOW = {
    "depth": ["docker", OTHER, *["x"] * 62],
    "length": ["docker", OTHER, *["y" * 248] * 14, "z" * 200],
    "walk": ["docker", OTHER, *["x"] * 130],
}
"""More than 64 names; more than 3,840 bytes; more levels than are walked. The last 64 of ``depth`` name the other."""
LIMIT_MIB = 64
SENDER = "import os, sys; open(sys.argv[1], 'w').write('0'); os.kill(int(sys.argv[2]), 9)"


@pytest.fixture
def own(cgroup: Cgroup) -> Cgroup:
    """The container's own cgroup, with a limit that leaves room for many child cgroups."""
    return cgroup.child(f"docker-{OWN}.scope", LIMIT_MIB)


@pytest.fixture
def below(request: pytest.FixtureRequest, own: Cgroup) -> Iterator[Cgroup]:
    """The cgroup made by the container."""
    chain = [own]
    try:
        for name in BELOW[request.param]:
            chain.append(chain[-1].child(name))
        yield chain[-1]
    finally:
        for group in chain:
            group.children.clear()  # removed in a loop below: too deep for recursion
        for group in reversed(chain[1:]):
            group.remove()


@pytest.fixture
def daemon(tmp_path: Path, own: Cgroup, make_daemon: MakeDaemon) -> Daemon:
    """A daemon with metadata of both containers; by Docker's state the other one was OOM killed."""
    for container_id, name in ((OWN, "shop"), (OTHER, "payments")):
        file = tmp_path / "docker" / "containers" / container_id / "config.v2.json"
        file.parent.mkdir(parents=True)
        state = {"Running": False, "OOMKilled": name == "payments", "ExitCode": 137}
        file.write_text(json.dumps({"Name": f"/{name}", "Config": {"Image": f"{name}:1"}, "State": state}))
    made = make_daemon(arguments=["--sigkill", "all", "--runtime-root", f"docker={tmp_path}/docker"])
    made.wait_ready()
    return made


def find(daemon: Daemon, kind: str, pid: int) -> Record:
    for _ in attempts():
        for record in daemon.of_type(kind):
            if pid in (record.get("pid"), record.get("victim", {}).get("pid")):
                return record
    pytest.fail(f"no {kind} record of {pid}")


@pytest.mark.parametrize("below", ["depth", "length"], indirect=True)
def test_cut(daemon: Daemon, own: Cgroup, below: Cgroup, eat: Eat) -> None:
    """A cut path keeps its beginning: the record has the container, and nothing of the other one."""
    eater = eat(LIMIT_MIB + 32, below).die()
    record, end = find(daemon, "oom_kill", eater.pid), find(daemon, "oom_exit", eater.pid)
    container = owner_of(record).container
    assert container is not None
    assert (container["id"], container["name"], container["image"]) == (OWN, "shop", "shop:1")
    assert record["container"]["node_container_id"] == OWN
    assert record["victim"]["cgroup"].startswith(f"{own.name}/docker/{OTHER}/")
    assert "victim.cgroup" in record["truncated"]
    limit = record["limit"]
    assert limit is None or limit["cgroup"] == own.name  # without kprobes its level is unknown
    assert "payments" not in json.dumps(record)
    assert end["runtime_verdict"] is None


@pytest.mark.parametrize("below", ["walk"], indirect=True)
def test_too_deep(daemon: Daemon, own: Cgroup, below: Cgroup, eat: Eat) -> None:
    """A path so deep that its beginning is not reached has no owner."""
    record = find(daemon, "oom_kill", eat(LIMIT_MIB + 32, below).die().pid)
    assert record["victim"]["cgroup"] is record["container"] is record["owner"] is record["systemd"] is None
    assert "victim.cgroup" in record["truncated"]
    assert "payments" not in json.dumps(record)


@pytest.mark.parametrize("below", list(BELOW), indirect=True)
def test_sender(daemon: Daemon, cgroup: Cgroup, own: Cgroup, below: Cgroup) -> None:
    """The same for sender and victim of a SIGKILL."""
    with subprocess.Popen(["sleep", "600"]) as victim:
        below.write("cgroup.procs", victim.pid)
        arguments = [f"{below.path}/cgroup.procs", str(victim.pid)]
        subprocess.run([sys.executable, "-c", SENDER, *arguments], check=True)
    record = find(daemon, "sigkill", victim.pid)
    for fields, path in ((record, record["victim"]["cgroup"]), (record["sender"], record["sender"]["cgroup"])):
        container = owner_of(fields).container
        if path is None:
            assert container is None
            assert below.name.count("/") > 128
        else:
            assert container is not None
            assert (container["id"], container["name"]) == (OWN, "shop")
            assert path.startswith(own.name)
    assert {"victim.cgroup", "sender.cgroup"} <= set(record["truncated"])
    assert "payments" not in json.dumps(record)
