# SPDX-License-Identifier: Apache-2.0
"""The scenarios of vagrant/: expectations are compared correctly, and their fields exist."""

import re
from pathlib import Path
from typing import Any

import pytest

from tracer.records.json_schema import json_schema
from vagrant import machines
from vagrant.oom_scenario.__main__ import introduction
from vagrant.oom_scenario.expectation import differences, missing_sigkills, parse

SCENARIOS = sorted(path for path in (machines.HERE / "scenarios").glob("*.sh") if path.stem != "lib")
CONDITION = re.compile(
    r"(?:^|[\s\"])((?:exit|incident|limit|victim|trigger|container|kubernetes|systemd|sender)[\w.]*)(?:[<>!]?=|~)"
)


def record(name: str = "1", **victim: Any) -> dict[str, Any]:
    return {"id": name, "limit": None, "victim": {"comm": "eat", "pid": 7, "rss_bytes": 4096, **victim}}


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("victim.comm=eat", True),
        ("victim.comm=ea", False),
        ("victim.comm~^e.t$", True),
        ("victim.comm!=eat", False),
        ("victim.pid=7", True),
        ("victim.rss_bytes>=4096", True),
        ("victim.rss_bytes<=4095", False),
        ("victim.comm>=0", False),
        ("limit=null", True),
        ("limit.cgroup=/a", False),
        ("victim.cmdline.1=1000", True),
        ("victim.cmdline.2=1000", False),
        ("victim.group=true", True),
        ("exit.container_init_died=true", False),
    ],
)
def test_condition(condition: str, met: bool) -> None:
    """Strings are compared literally, other values as JSON; a missing field never matches."""
    (expected,) = parse(condition)
    assert met == (differences([expected], [record(cmdline=["sleep", "1000"], group=True)]) == [])


def test_records() -> None:
    """Each record meets one expectation, in any order; the rest on either side is reported."""
    expected = parse("victim.pid=1\nvictim.comm=eat\n\nvictim.pid=2\n\n")
    assert differences(expected, [record(pid=2), record(pid=1)]) == []
    assert differences(expected, [record(pid=2)]) == ["no record with victim.pid=1 victim.comm=eat"]
    assert differences(expected, [record(pid=2), record(pid=1), record("x", pid=3)]) == ["x: not expected: eat (pid 3)"]
    assert differences(expected, [record(pid=2), record("x", pid=1, comm="hog")]) == ['x: victim.comm=eat: it is "hog"']
    assert differences(parse("\n"), []) == []


def test_sigkills() -> None:
    """Other types are expected by type; unexpected ones are ignored, and none meets an OOM kill's expectation."""
    expected = parse("type=sigkill\nvictim.pid=1\n\nvictim.pid=2")
    one, other = ({"type": "sigkill", **record(pid=pid)} for pid in (1, 2))
    assert missing_sigkills(expected, [other, one]) == []
    assert missing_sigkills(expected, [other]) == ["no record with type=sigkill victim.pid=1"]
    assert differences(expected, [record(pid=2)]) == []
    assert differences(expected, []) == ["no record with victim.pid=2"]


@pytest.mark.parametrize("text", ["victim.comm", "=eat", "victim.rss_bytes>=much"])
def test_no_condition(text: str) -> None:
    """A typing error is reported."""
    with pytest.raises(ValueError, match="no condition"):
        parse(text)


def fields(definition: dict[str, Any], definitions: dict[str, Any]) -> set[str]:
    """All fields below it, by path."""
    found = set()
    for name, field in definition["properties"].items():
        found.add(name)
        for reference in re.findall(r"'#/\$defs/(\w+)'", str(field)):
            found |= {f"{name}.{inner}" for inner in fields(definitions[reference], definitions)}
    return found


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    """A scenario starts with a description and expectations, whose fields are those of records."""
    assert any(line.startswith("Expect ") for line in introduction(path)[1:])
    definitions = json_schema()["$defs"]
    known = fields(definitions["OomKill"], definitions)
    known |= fields(definitions["Sigkill"], definitions)
    known |= {f"exit.{name}" for name in fields(definitions["OomExit"], definitions)}
    asked = {re.sub(r"\.\d+$", "", name) for name in CONDITION.findall(path.read_text())}
    assert asked <= known
    assert asked or "expect_none" in path.read_text()
    assert f"`{path.stem}`" in machines.PAGE.read_text()


def test_machines() -> None:
    """The page has every machine."""
    assert machines.names()
    assert [name for name in machines.names() if f"`{name}`" not in machines.PAGE.read_text()] == []
