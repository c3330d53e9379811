# SPDX-License-Identifier: Apache-2.0
"""Files of deploy/collectors for programs that do not run in the tests: syntax, and known settings."""

import configparser
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import ROOT
from tests.harness.full_records import FULL
from tracer.encoding.ecs import ecs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = ROOT / "deploy" / "collectors"


def parse(path: Path) -> Any:
    text = path.read_text()
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".toml":
        return tomllib.loads(text)
    if path.suffix == ".yaml":
        return yaml.safe_load(text)
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


@pytest.mark.parametrize(
    "name",
    [
        "elasticsearch/index-template.json",
        "loki/promtail.yaml",
        "splunk/inputs.conf",
        "splunk/props.conf",
        "vector/vector.toml",
    ],
)
def test_syntax(name: str) -> None:
    """The head of the file says that only its syntax is checked."""
    assert parse(FOLDER / name)
    head = " ".join((FOLDER / name).read_text()[:600].split())
    assert "Only its syntax" in head or "Not run by" in head


def objects_in_lists(fields: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from objects_in_lists(value, f"{path}{name}.")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            yield path + name


def test_template_keeps_objects_together() -> None:
    """Every list of objects is mapped as nested: otherwise pids of one candidate would match the names of another."""
    template = parse(FOLDER / "elasticsearch" / "index-template.json")
    for record in FULL.values():
        for path in objects_in_lists(ecs(record)):
            mapping = template["template"]["mappings"]
            for name in path.split("."):
                mapping = mapping["properties"][name]
            assert mapping["type"] == "nested", path


def test_template_is_for_the_default_index() -> None:
    """The data stream is the default of the URI."""
    assert parse(FOLDER / "elasticsearch" / "index-template.json")["index_patterns"] == ["logs-oomtrace-*"]
