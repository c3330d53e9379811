# SPDX-License-Identifier: Apache-2.0
"""matching.py: what names a container is the same for every command and option that takes one."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.harness.events import incident, victim
from tests.harness.kernel_log_files import FILES
from tests.harness.records import complete
from tracer.identity.enrich import Whose
from tracer.logs.kills import LogKills, Wanted
from tracer.pipeline.incidents import Kill
from tracer.reading import processes
from tracer.records.filter import Filter
from tracer.top.snapshot import Entry, select
from tracer.why.search import Target, kind_of

ID = "5aaf9eb7648eeb1459d86eaa0ace8bcfa93089642e5c3113a14250dae3238aaf"


@pytest.fixture
def kill() -> Any:
    """A kill in a container of a pod, which has another name there."""
    made: Any = complete(Kill(victim(), incident(), 1, (), (), ()))
    made["victim"] = {**made["victim"], "comm": "java", "exe": None, "cmdline": None}
    made["container"] = {"id": ID, "name": "k8s_cart_cart-7f_shop", "node_container_id": None}
    made["kubernetes"] = {"pod_name": "cart-7f", "namespace": "shop", "pod_uid": "uid", "container_name": "cart"}
    made["systemd"] = None
    return made


NAMES = [
    ("k8s_cart_cart-7f_shop", True),
    ("cart", True),
    (ID, True),
    (ID[:12], True),
    (ID[:6], True),
    (ID[:1], True),
    (ID[1:], False),
    (f"{ID}0", False),
    ("car", False),
    ("k8s_cart", False),
    ("java", False),
    ("", False),
]


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_top(kill: Any, name: str, expected: bool) -> None:
    """``oomtrace top --container``."""
    own = processes.read(os.getpid())
    assert own is not None
    whose = Whose(kill["container"], kill["kubernetes"], None, None, False)
    entry = Entry(own, "nobody", 1.0, 1.0, None, (), whose, ["python3"])
    assert select([entry], "rss", name, None) == ([entry] if expected else [])


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_parse(tmp_path: Path, name: str, expected: bool) -> None:
    """``oomtrace parse --container``: a kernel log tells the id alone."""
    log = tmp_path / "log"
    log.write_bytes(FILES["6.1-v1-memcg1"].replace(b"/test", f"/docker/{ID}".encode()))
    found = list(LogKills(Wanted(container=name)).kills([str(log)]))
    assert bool(found) == (expected and bool(name) and ID.startswith(name))


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_filter(kill: Any, name: str, expected: bool) -> None:
    """``--only container=PATTERN``: how an id begins is written as a pattern."""
    pattern = f"{name}*" if name and ID.startswith(name) else name
    assert Filter([("container", pattern)], []).passes(kill) == expected
    assert Filter([], [("container", pattern)]).passes(kill) != expected


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_why(kill: Any, name: str, expected: bool) -> None:
    """``oomtrace why NAME``: a name may be a process's or a pid as well, so a few digits of an id name no container."""
    kind = kind_of(kill, Target(name, (), ()))
    assert (kind == "container") == (expected and name != ID[:1])
