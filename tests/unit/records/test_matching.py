# SPDX-License-Identifier: Apache-2.0
"""matching.py: a NAME refers to the same container in every command and option."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.harness.events import incident, victim
from tests.harness.kernel_log_files import FILES
from tests.harness.records import complete
from tracer.identity.enrich import ResolvedIdentity
from tracer.logs.kills import KillFilter, KillSearch
from tracer.pipeline.incidents import JoinedKill
from tracer.reading import processes
from tracer.records.filter import Filter
from tracer.records.matching import OwnerFilter
from tracer.report.make import ReportOptions, write_report
from tracer.top.snapshot import ProcessEntry, select_entries
from tracer.why.search import Target, first_kind

ID = "5aaf9eb7648eeb1459d86eaa0ace8bcfa93089642e5c3113a14250dae3238aaf"


@pytest.fixture
def kill() -> Any:
    """A kill in a pod's container, which has another name in the pod."""
    made: Any = complete(JoinedKill(victim(), incident(), 1, (), (), ()))
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
    own = processes.read_process(os.getpid())
    assert own is not None
    identity = ResolvedIdentity(kill["container"], kill["kubernetes"], None, None, False)
    entry = ProcessEntry(own, "nobody", 1.0, 1.0, None, (), identity, ["python3"])
    assert select_entries([entry], "rss", OwnerFilter(container=name)) == ([entry] if expected else [])


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_parse(tmp_path: Path, name: str, expected: bool) -> None:
    """``oomtrace parse --container``: a kernel log only has the id."""
    log = tmp_path / "log"
    log.write_bytes(FILES["6.1-v1-memcg1"].replace(b"/test", f"/docker/{ID}".encode()))
    found = list(KillSearch(KillFilter(container=name)).kills([str(log)]))
    assert bool(found) == (expected and bool(name) and ID.startswith(name))


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_filter(kill: Any, name: str, expected: bool) -> None:
    """``--only container=PATTERN``: the beginning of an id is a pattern."""
    pattern = f"{name}*" if name and ID.startswith(name) else name
    assert Filter([("container", pattern)], []).matches(kill) == expected
    assert Filter([], [("container", pattern)]).matches(kill) != expected


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_why(kill: Any, name: str, expected: bool) -> None:
    """``oomtrace why NAME``: the name may also be a process's or a pid, so a few digits of an id match no container."""
    kind = first_kind(kill, Target(name, (), ()))
    assert (kind == "container") == (expected and name != ID[:1])


SELECTIONS: list[tuple[dict[str, str], bool]] = [
    ({"pod": "cart-7f"}, True),
    ({"pod": "shop/cart-7f"}, True),
    ({"pod": "uid"}, True),
    ({"pod": "pay/cart-7f"}, False),
    ({"cgroup": "/kubepods/poduid"}, True),
    ({"cgroup": "/"}, True),
    ({"cgroup": f"/kubepods/poduid/{ID}"}, True),
    ({"cgroup": "/kubepods/pod"}, False),
    ({"cgroup": f"/kubepods/poduid/{ID}/inner"}, False),
    ({"container": "cart", "pod": "cart-7f", "cgroup": "/kubepods"}, True),
    ({"container": "cart", "pod": "other"}, False),
    ({"unit": "cart"}, False),
]


@pytest.mark.parametrize(("selection", "expected"), SELECTIONS)
def test_selections(kill: Any, selection: dict[str, str], expected: bool, tmp_path: Path) -> None:
    """--container, --pod, --unit and --cgroup mean the same in top, report and, as far as logs have them, parse."""
    path = f"/kubepods/poduid/{ID}"
    kill["victim"]["cgroup"] = path
    own = processes.read_process(os.getpid())
    assert own is not None
    identity = ResolvedIdentity(kill["container"], kill["kubernetes"], None, None, False)
    entry = ProcessEntry(own._replace(cgroup=path), "nobody", 1.0, 1.0, None, (), identity, ["python3"])
    assert bool(select_entries([entry], "rss", OwnerFilter(**selection))) is expected

    page = tmp_path / "page.md"
    records = tmp_path / "records"
    records.write_text(json.dumps(kill) + "\n")
    assert write_report([str(records)], ReportOptions("md", str(page), names=OwnerFilter(**selection))) == 0
    assert ("java" in page.read_text()) is expected


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"cgroup": f"/docker/{ID}"}, True),
        ({"cgroup": "/docker"}, True),
        ({"cgroup": f"/docker/{ID[:12]}"}, False),
        ({"pod": "uid"}, False),
    ],
)
def test_selections_of_a_log(tmp_path: Path, selection: dict[str, str], expected: bool) -> None:
    """``oomtrace parse``."""
    log = tmp_path / "log"
    log.write_bytes(FILES["6.1-v1-memcg1"].replace(b"/test", f"/docker/{ID}".encode()))
    assert bool(list(KillSearch(KillFilter(**selection)).kills([str(log)]))) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, "2026-11-24 00:00Z", False),
        ("2026-11-24 00:00Z", None, True),
        ("2026-11-24 04:00Z", None, False),
        ("2026-11-24 03:00Z", "2026-11-24 04:00Z", True),
        ("2h", None, False),
    ],
)
def test_report_period(kill: Any, tmp_path: Path, since: str | None, until: str | None, expected: bool) -> None:
    """``oomtrace report --since`` and ``--until``."""
    kill["time"] = "2026-11-24T03:51:53.000000000Z"
    records, page = tmp_path / "records", tmp_path / "page.md"
    records.write_text(json.dumps(kill) + "\n")
    assert write_report([str(records)], ReportOptions("md", str(page), since=since, until=until)) == 0
    assert ("java" in page.read_text()) is expected
