# SPDX-License-Identifier: Apache-2.0
"""The list of incidents and their details.  tests/report tests the terminal."""

import copy
import json
from typing import Any

import pytest

from tests.report.samples import HOSTILE, many, of_kernel_logs
from tests.unit.report.test_report import hostile_records
from tracer.base.printable import printable
from tracer.records.summary import describe_kill
from tracer.watch import model as models
from tracer.watch.detail import detail_lines, list_row
from tracer.watch.model import IncidentList

BASES = of_kernel_logs()


def filled(records: list[dict[str, Any]]) -> IncidentList:
    model = IncidentList()
    for record in records:
        model.take(json.dumps(record).encode())
    return model


def test_newest_first() -> None:
    """Incidents are in order of arrival, the last one first; duplicates count once."""
    records = list(many(BASES, 50))
    model = filled([*records, *records[:20]])
    assert (model.incidents, model.victims, model.bad, model.missing) == (50, 50, 0, 0)
    assert [shown.incident.kills[0].record["id"] for shown in model.shown] == [each["id"] for each in records[::-1]]


def test_lowered_limit() -> None:
    """A process that lowered a limit did not request memory; a log without dates has the time since boot."""
    (record,) = [copy.deepcopy(record) for record in BASES if record["victim"]["comm"] == "hog-shrunk"]
    record["time"], record["id"] = None, "0-k40b3e5c-760"

    def facts() -> dict[str, str]:
        (shown,) = filled([record]).shown
        assert list_row(shown.incident)[0] == "67.85 s up"
        return {line.label: line.text for line in detail_lines(shown.incident) if line.style == "fact"}

    assert facts()["time"] == "67.85 s after boot"
    assert not {"requested by", "lowered by"} & facts().keys(), "the log does not say"
    record["trigger"]["cgroup"] = "/system.slice/ssh.service"
    assert facts()["lowered by"] == f"sh (thread {record['trigger']['tid']})"
    record["limit"]["usage_bytes"] = record["limit"]["limit_bytes"]
    assert facts()["requested by"] == f"sh (thread {record['trigger']['tid']})"


def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old incidents are dropped, but counted; the filtered list drops them, too."""
    monkeypatch.setattr(models, "INCIDENTS_MAX", 30)
    records = list(many(BASES, 100))
    model = IncidentList()
    model.filter("node-1 memcg")
    for record in records:
        model.take(json.dumps(record).encode())
    kept = records[-30:]
    wanted = [each for each in kept if each["host"]["name"] == "node-1" and each["incident"]["scope"] == "memcg"]
    assert [shown.incident.kills[0].record["id"] for shown in model.shown] == [each["id"] for each in wanted[::-1]]
    model.filter("")
    assert len(model.shown) == 30
    assert model.incidents == 100


def test_filter_as_it_comes() -> None:
    """A filter has the same result before and after records arrive; words may be in any order and case."""
    records = list(many(BASES, 200))
    before = IncidentList()
    before.filter("CART node-1")
    for record in records:
        before.take(json.dumps(record).encode())
    after = filled(records)
    after.filter("node-1 cart")
    ids = [[shown.incident.kills[0].record["id"] for shown in each.shown] for each in (before, after)]
    assert ids[0] == ids[1]
    assert 0 < len(ids[0]) < 200


def test_late_victim_of_an_old_incident(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old incident that matches only now keeps its place in time, and is dropped in time."""
    monkeypatch.setattr(models, "INCIDENTS_MAX", 5)
    records = list(many(BASES, 10))
    late = copy.deepcopy(records[1])
    late["id"], late["victim"]["comm"] = "late", "latecomer"
    for record in (records[0], records[4], late):
        record["victim"]["cgroup"] = "/wanted"
    model = IncidentList()
    model.filter("wanted")
    for record in (*records[:5], late):
        model.take(json.dumps(record).encode())
    shown = [each.incident.kills[0].record["id"] for each in model.shown]
    assert shown == [records[4]["id"], records[1]["id"], records[0]["id"]]
    for record in records[5:7]:
        model.take(json.dumps(record).encode())
    assert [each.incident.kills[0].record["id"] for each in model.shown] == [records[4]["id"]]


def test_hosts_with_the_same_ids() -> None:
    """The same id on another host is another kill, with its own exit."""
    (one,) = many(BASES, 1)
    other = copy.deepcopy(one)
    one["host"]["name"], other["host"]["name"] = "node-1", "node-2"
    gone = {
        **{name: other[name] for name in ("schema", "time", "seq", "host", "id")},
        "type": "oom_exit",
        "incident_id": other["incident"]["id"],
        "pid": 1,
        "after_ns": 5,
        "container_init_died": None,
        "runtime_verdict": None,
    }
    model = filled([one, other, gone])
    assert (model.incidents, model.victims) == (2, 2)
    assert [shown.incident.kills[0].exit for shown in model.shown] == [gone, None]


def test_group_kill_and_its_end() -> None:
    """Victims of one incident are one entry, with their exits."""
    group = [record for record in BASES if record["incident"]["group_kill"]]
    group = [record for record in group if record["incident"]["id"] == group[0]["incident"]["id"]]
    gone = {
        **{name: group[0][name] for name in ("schema", "time", "seq", "host", "id")},
        "type": "oom_exit",
        "incident_id": group[0]["incident"]["id"],
        "pid": 1,
        "after_ns": 2_500_000,
        "container_init_died": True,
        "runtime_verdict": None,
    }
    model = filled([*group, gone])
    (shown,) = model.shown
    assert (model.incidents, model.victims) == (1, len(group))
    assert f"+{len(group) - 1}" in list_row(shown.incident)[1]
    said = [line.text for line in detail_lines(shown.incident)]
    assert said[: len(group)] == [describe_kill(record) for record in group]  # type: ignore[arg-type]
    assert "after 2.5 ms, the container ended with it" in said


def test_bad_lines() -> None:
    """Lines that are not records are counted."""
    model = IncidentList()
    for line in (b"x", b"{}", b'{"type":"oom_kill"}', b"\xff"):
        model.take(line)
    assert (model.bad, model.incidents) == (4, 0)


def test_what_is_said() -> None:
    """Every real kill has a sentence, and bars of 0 to 1; the victim is marked among the candidates."""
    bars = 0
    for record in BASES:
        (shown,) = filled([record]).shown
        found = list(detail_lines(shown.incident))
        assert found[0].text == printable(describe_kill(record))  # type: ignore[arg-type]
        shares = [line.share for line in found if line.share is not None]
        assert all(0 <= share <= 1 for share in shares)
        bars += len(shares)
        listed = any(each["pid"] == record["victim"]["pid"] for each in record["candidates"] or ())
        marked = [line.label for line in found if line.style == "victim"]
        assert (len(marked) == 1 and printable(str(record["victim"]["comm"])) in marked[0]) or not listed
    assert bars > 100


def test_names_are_harmless() -> None:
    """No name puts a control character on the screen."""
    model = filled(hostile_records())
    assert len(model.shown) == len(HOSTILE)
    for shown in model.shown:
        texts = [
            *list_row(shown.incident),
            *(text for line in detail_lines(shown.incident) for text in (line.label, line.text)),
        ]
        assert all(text.isprintable() for text in texts)
