# SPDX-License-Identifier: Apache-2.0
"""encoder.py: one line of JSON, never longer than allowed, for any values."""

import json
import unicodedata
from copy import deepcopy
from itertools import permutations
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.harness import events
from tests.harness.records import HOST, complete
from tests.harness.schema import validate
from tracer.capture import wire
from tracer.encoding.encoder import MAX_BYTES, MIN_MAX_BYTES, encode
from tracer.encoding.styles import STYLES
from tracer.records.model import CgroupKills, Gap, Lost, OomKill

NAMES = ("leaf", "b" * 255, "\x01" * 255, "é" * 127, "\\", '"', "\x7f", "\x9b")
FULL = tuple(events.candidate(pid=number, comm=events.comm(b"\x01" * 15)) for number in range(wire.CANDIDATES_MAX))


def long_path(name: bytes, size: int) -> bytes:
    """Names from the leaf to the root, ``size`` bytes in total."""
    return (name + b"\0") * (size // (len(name) + 1))


def parse(line: bytes) -> Any:
    """The record in a line, which has no control characters and satisfies the JSON Schema."""
    text = line.decode()
    assert text.endswith("\n")
    assert not [character for character in text[:-1] if unicodedata.category(character) == "Cc"]
    record = json.loads(text)
    validate(record)
    return record


def record(victim: dict[str, Any] | None = None, incident: dict[str, Any] | None = None, sharers: int = 0) -> OomKill:
    """A record with some long fields."""
    several = tuple(events.shared_mm(1 << 21 | number) for number in range(sharers))
    return complete(events.kill(events.victim(**victim or {}), events.incident(**incident or {}), several))


def test_short_record_is_whole() -> None:
    """A record that fits is not trimmed."""
    whole = record()
    assert whole == parse(encode(whole))
    assert whole["truncated"] == []


def test_command_line_goes_first() -> None:
    """A command line is trimmed at its end."""
    whole = record({"cmdline": b"/bin/x\0" + b"a" * 1000, "cgroup": long_path(b"b" * 250, 1500)})
    trimmed = parse(encode(whole, len(encode(whole)) - 500))
    assert trimmed["truncated"] == ["victim.cmdline"]
    assert trimmed["victim"]["cmdline"][0] == "/bin/x"
    assert whole["victim"]["cgroup"] == trimmed["victim"]["cgroup"]


def test_labels_go_first() -> None:
    """Labels are trimmed first."""
    whole = record({"cgroup": events.path(b"/docker/" + b"5" * 64)})
    assert whole["container"] is not None
    whole["container"]["labels"] = {f"label-{number}": "v" * 100 for number in range(100)}
    trimmed = parse(encode(whole))
    assert trimmed["truncated"] == ["container.labels"]
    assert 40 < len(trimmed["container"]["labels"]) < 100
    assert whole["victim"] == trimmed["victim"]


@pytest.mark.parametrize("order", list(permutations(STYLES)))
def test_each_output_has_its_own(order: tuple[str, ...]) -> None:
    """Styles are trimmed independently: each line is the same in any order of encoding."""
    whole = record({"cgroup": events.path(b"/docker/" + b"5" * 64)})
    assert whole["container"] is not None
    whole["container"]["labels"] = {f"label-{number}": "v" * 70 for number in range(66)}
    before, alone = deepcopy(whole), {style: encode(deepcopy(whole), style=STYLES[style]) for style in order}
    assert parse(alone["nested"])["truncated"] == []
    assert b'"oomtrace.truncated":["container.labels"]' in alone["otel"]
    assert {style: encode(whole, style=STYLES[style]) for style in order} == alone
    assert whole == before


def test_cgroup_keeps_its_beginning() -> None:
    """A cgroup's path is trimmed at its end: its beginning identifies the owner."""
    limit = long_path(b"b" * 250, 4000) + b"docker\0"
    trimmed = parse(encode(record(incident={"limit_cgroup": limit}), MIN_MAX_BYTES))
    assert "limit.cgroup" in trimmed["truncated"]
    assert trimmed["limit"]["cgroup"].startswith("/docker/bbb")
    assert trimmed["limit"]["cgroup"].endswith("…")


def test_exe_keeps_its_end() -> None:
    """An executable's path is trimmed at its beginning."""
    trimmed = parse(encode(record({"exe": b"leaf\0" + long_path(b"b" * 250, 4000)}), MIN_MAX_BYTES))
    assert "victim.exe" in trimmed["truncated"]
    assert trimmed["victim"]["exe"].startswith("…")
    assert trimmed["victim"]["exe"].endswith("/leaf")


def test_candidates_are_trimmed_from_the_end() -> None:
    """The candidates with the highest scores are kept."""
    paths = long_path(b"b" * 250, 2000)
    whole = record({"cgroup": paths, "exe": paths}, {"candidates": FULL, "candidates_len": 10, "limit_cgroup": paths})
    assert whole["candidates"] is not None
    before = [candidate["pid"] for candidate in whole["candidates"]]
    trimmed = parse(encode(whole))
    assert "candidates" in trimmed["truncated"]
    assert before[: len(trimmed["candidates"])] == [candidate["pid"] for candidate in trimmed["candidates"]]
    assert 3 <= len(trimmed["candidates"]) < 10


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [MIN_MAX_BYTES, MAX_BYTES])
def test_everything_is_long(name: str, limit: int) -> None:
    """With every field as long as possible the line still fits."""
    paths = long_path(name.encode(), 4096)
    whole = record(
        {"cmdline": (name.encode() + b"\0") * (1024 // (len(name.encode()) + 1)), "cgroup": paths, "exe": paths},
        {"limit_cgroup": paths, "trigger_cgroup": paths, "candidates": FULL, "candidates_len": 10},
    )
    line = encode(whole, limit)
    assert len(line) <= limit
    parse(line)


@pytest.mark.parametrize("limit", [MIN_MAX_BYTES, MAX_BYTES])
def test_all_at_once(limit: int) -> None:
    """With all values that a container controls, its own cgroups included, at their longest, the line still fits."""
    name = b"\x01" * 240
    cgroup = events.path(b"/docker/" + b"5" * 64 + b"/lxc/%b/%b.slice/%b.service" % (name, name, name))
    paths, comm = long_path(name, 4096), b"\x01" * 16
    whole = record(
        {"cgroup": cgroup, "exe": paths, "cmdline": b"\x01\0" * 512, "comm": comm},
        {
            "limit_cgroup": paths,
            "trigger_cgroup": paths,
            "trigger_comm": comm,
            "candidates": FULL,
            "candidates_len": 10,
        },
        sharers=1000,
    )
    line = encode(whole, limit)
    assert len(line) <= limit
    parse(line)


@pytest.mark.parametrize(("sharers", "cut"), [(10, []), (100, []), (1000, ["victim.shared_mm"])])
def test_many_sharers(sharers: int, cut: list[str]) -> None:
    """With any number of shared_mm processes the line fits and names the trimmed field."""
    line = encode(record(sharers=sharers))
    assert len(line) <= MAX_BYTES
    assert cut == parse(line)["truncated"]


@pytest.mark.parametrize("argument", [b"\0", b"a\0", b"\x01\0", b"\xff\0"])
def test_many_arguments(argument: bytes) -> None:
    """A command line of many arguments, also empty ones, is trimmed if it does not fit."""
    paths = long_path(b"b" * 100, 1500)
    whole = record({"cmdline": argument * (1024 // len(argument)), "cgroup": paths}, {"limit_cgroup": paths})
    line = encode(whole, MIN_MAX_BYTES)
    assert len(line) <= MIN_MAX_BYTES
    assert "victim.cmdline" in parse(line)["truncated"]


def test_what_was_not_cut_is_not_named() -> None:
    """Only trimmed fields are in `truncated`."""
    whole = record(incident={"limit_cgroup": long_path(b"b" * 250, 4000)})
    before = json.loads(encode(whole, 1 << 20))
    trimmed = parse(encode(whole, MIN_MAX_BYTES))
    changed = {
        f"{part}.{field}"
        for part in ("victim", "limit", "trigger")
        for field, value in trimmed[part].items()
        if value != before[part][field]
    }
    assert changed == set(trimmed["truncated"])


def test_other_records_are_never_trimmed() -> None:
    """Other records have no long fields."""
    lost: Lost = {
        "schema": 1,
        "type": "lost",
        "time": "2026-01-02T03:04:05.000000006Z",
        "seq": 3,
        "host": HOST,
        "id": None,
        "stage": "ring_buffer",
        "count": 2,
        "since": "2026-01-02T03:04:04.000000006Z",
    }
    assert lost == parse(encode(lost))


def test_gap_with_long_paths() -> None:
    """A gap names as many cgroups as fit into the line."""
    cgroups: list[CgroupKills] = [{"cgroup": "/x" * 2000, "oom_kills": 1, "records": 0} for _ in range(10)]
    gap: Gap = {
        "schema": 1,
        "type": "gap",
        "time": "2026-01-02T03:04:05.000000006Z",
        "seq": 3,
        "host": HOST,
        "id": "6a4ce4a0-28-2a",
        "since": None,
        "oom_kills": 10,
        "records": 0,
        "missing": 10,
        "cgroups": cgroups,
    }
    told = encode(gap)
    assert 4096 < len(told) <= 8192
    assert parse(told)["cgroups"] == [{"cgroup": "/x" * 2000, "oom_kills": 1, "records": 0}]
    assert len(cgroups) == 10


NAME = st.binary(min_size=1, max_size=255).filter(lambda name: not {0, ord("/")} & set(name))
PATH = st.builds(
    lambda names, times: (b"".join(name + b"\0" for name in names) * times)[:4096],
    st.lists(NAME | st.sampled_from([name.encode() for name in NAMES]), max_size=4),
    st.integers(1, 16),
)
COMM = st.binary(max_size=15).map(events.comm)


@given(
    comm=COMM,
    cgroup=PATH,
    exe=PATH,
    cmdline=st.binary(max_size=1024),
    limit=PATH,
    trigger=PATH,
    candidates=st.lists(COMM, max_size=10),
    max_bytes=st.integers(MIN_MAX_BYTES, MAX_BYTES),
)
@example(
    comm=events.comm(b'\x1b]0;"\\\n\x7f\xc2\x9b'),
    cgroup=b"\x1b[31m\0\xc2\x85\0\xe2\x80\xa8\0",
    exe=b"\r\0",
    cmdline=b"\n\0\xc2\x80",
    limit=b"\x7f\0",
    trigger=b"\xff\0",
    candidates=[events.comm(b"\n")],
    max_bytes=MAX_BYTES,
)
def test_hostile_bytes(
    comm: bytes,
    cgroup: bytes,
    exe: bytes,
    cmdline: bytes,
    limit: bytes,
    trigger: bytes,
    candidates: list[bytes],
    max_bytes: int,
) -> None:
    """For any bytes that a container chose, a record is one line of valid JSON that fits."""
    entries = tuple(events.candidate(pid=number + 2, comm=name) for number, name in enumerate(candidates))
    whole = record(
        {"comm": comm, "cgroup": cgroup, "exe": exe, "cmdline": cmdline},
        {
            "limit_cgroup": limit,
            "trigger_cgroup": trigger,
            "trigger_comm": comm,
            "candidates": entries,
            "candidates_len": len(entries),
        },
    )
    before = json.loads(json.dumps(whole))
    line = encode(whole, max_bytes)
    assert len(line) <= max_bytes
    after = parse(line)
    if not after["truncated"]:
        assert before == after


@pytest.mark.parametrize(
    "char", ["\u2028", "\u2029", "\u202e", "\u2066", "\u200b", "\ufeff", "\u00ad", "\u061c", "\x9b"]
)
def test_invisible_characters_are_escaped(char: str) -> None:
    """Line separators, invisible and bidirectional characters are escaped in the line."""
    encoded = encode(record({"cmdline": f"a{char}b\0".encode()}))
    assert char.encode() not in encoded
    assert parse(encoded)["victim"]["cmdline"] == [f"a{char}b"]
    assert len(encoded.decode().splitlines()) == 1
