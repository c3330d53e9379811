# SPDX-License-Identifier: Apache-2.0
"""enrich.py: the owner of the cgroup, and what /proc still shows of the victim."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import events
from tests.harness.records import complete
from tracer.capture import wire
from tracer.identity.enrich import resolve_cgroup
from tracer.identity.runtime_metadata import ContainerMetadata
from tracer.linux import procfs
from tracer.records.model import OomKill

ID = "5aaf9eb7648eeb1459d86eaa0ace8bcfa93089642e5c3113a14250dae3238aaf"
POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6a4ce4a0_ba47_11ea_b2a7_0cc47ac5979e.slice"
FLAGS = wire.VICTIM_TASK | wire.VICTIM_CGROUP
BLANK = {"flags": FLAGS, "cmdline": b"", "exe": b""}
"""A victim whose command line and executable the BPF programs could not read."""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a long command line, which runs until the test ends."""
    command = [sys.executable, "-c", "print(flush=True); input()", *["argument"] * 500]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.communicate(b"\n")


def killed(pid: int, late_ns: int = 0, **changes: Any) -> OomKill:
    """The record of a kill of a running process, or of an earlier process with its pid."""
    start_ns = procfs.read_start_ns(pid)
    assert start_ns is not None
    return complete(events.kill(events.victim(pid=pid, started_ns=start_ns - late_ns, **{**BLANK, **changes})))


def test_identity() -> None:
    """Container, pod and unit are of the victim's cgroup; the level is of the limit's."""
    victim = events.victim(cgroup=events.path(f"{POD}/cri-containerd-{ID}.scope".encode()))
    record = complete(events.kill(victim, events.incident(limit_cgroup=events.path(POD.encode()))))
    assert record["container"] is not None
    assert (record["container"]["id"], record["container"]["runtime"]) == (ID, "containerd")
    assert record["kubernetes"] is not None
    assert record["kubernetes"]["pod_uid"] == "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e"
    assert record["limit"] is not None
    assert record["limit"]["level"] == "pod"


def test_no_cgroup() -> None:
    """An unknown cgroup has no identity."""
    record = complete(events.kill(events.victim(flags=wire.VICTIM_TASK, cgroup=b"")))
    assert (record["container"], record["kubernetes"], record["systemd"]) == (None, None, None)


def test_what_proc_shows() -> None:
    """Command line and executable are read from /proc if the BPF programs have none."""
    victim = killed(os.getpid())["victim"]
    assert os.readlink("/proc/self/exe") == victim["exe"]
    assert victim["cmdline"] is not None
    assert sys.orig_argv[0] == victim["cmdline"][0]


@pytest.mark.parametrize("late_ns", [1_000_000_000, -1_000_000_000])
def test_somebody_else(late_ns: int) -> None:
    """A process with the same pid and another start is not the victim."""
    victim = killed(os.getpid(), late_ns)["victim"]
    assert (victim["cmdline"], victim["exe"]) == (None, None)


def test_gone() -> None:
    """A victim that has left /proc has no command line."""
    victim = complete(events.kill(events.victim(**BLANK)))["victim"]
    assert (victim["cmdline"], victim["exe"]) == (None, None)


def test_kernel_knows_better() -> None:
    """Values from the BPF programs are kept."""
    record = killed(os.getpid(), flags=events.victim().flags, cmdline=b"own\0", exe=events.path(b"/own"))
    assert (record["victim"]["cmdline"], record["victim"]["exe"]) == (["own"], "/own")


@pytest.mark.parametrize("cut", [0, wire.VICTIM_CMDLINE_TRUNCATED])
def test_long_cmdline(cut: int, sleeper: subprocess.Popen[bytes]) -> None:
    """A command line from /proc is cut at the programs' limit, and `truncated` has it once."""
    record = killed(sleeper.pid, flags=FLAGS | cut)
    assert record["victim"]["cmdline"] is not None
    length = len("\0".join(record["victim"]["cmdline"]))
    assert procfs.CMDLINE_LEN - 1 <= length <= procfs.CMDLINE_LEN  # it may end after an argument
    assert record["truncated"] == ["victim.cmdline"]


def test_cut_and_gone() -> None:
    """An unknown command line is not in `truncated`."""
    record = complete(events.kill(events.victim(**{**BLANK, "flags": FLAGS | wire.VICTIM_CMDLINE_TRUNCATED})))
    assert record["victim"]["cmdline"] is None
    assert record["truncated"] == []


OTHER = "f" * 64


def fetch(container_id: str, _runtime: str | None, _pod_uid: str | None, _user: int | None = None) -> ContainerMetadata:
    return {"runtime": "docker", "name": f"the name of {container_id}", "labels": {"team": "a"}}


def test_names_of_another_container() -> None:
    """A container that creates a cgroup with the name of another does not get the other's name and labels."""
    identity = resolve_cgroup(f"/docker/{ID}/docker/{OTHER}", fetch)
    assert identity.container is not None
    assert (identity.container["id"], identity.container["node_container_id"]) == (OTHER, ID)
    assert (identity.container["name"], identity.container["labels"]) == (None, None)
    own = resolve_cgroup(f"/docker/{ID}", fetch).container
    assert own is not None
    assert own["name"] == f"the name of {ID}"


def test_pod_of_an_image() -> None:
    """Docker's labels may come from the image: they do not put a container into a pod."""

    def labelled(*_: object) -> ContainerMetadata:
        return {"runtime": "docker", "pod_uid": "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e", "pod_name": "web-0"}

    assert resolve_cgroup(f"/docker/{ID}", labelled).kubernetes is None
    kubernetes = resolve_cgroup(f"{POD}/docker-{ID}.scope", labelled).kubernetes
    assert kubernetes is not None
    assert kubernetes["pod_name"] == "web-0"


def test_user_with_cgroups_of_a_container() -> None:
    """A user may name a cgroup like a container: the record still has the user's unit and uid."""
    path = f"/user.slice/user-1000.slice/user@1000.service/app.slice/docker-{OTHER}.scope"
    record = complete(events.kill(events.victim(uid=1000, cgroup=events.path(path.encode()))))
    assert record["container"] is not None
    assert record["container"]["id"] == OTHER
    assert (record["victim"]["cgroup"], record["victim"]["uid"]) == (path, 1000)
