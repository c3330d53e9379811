# SPDX-License-Identifier: Apache-2.0
"""Structs mirrored in Python have the C compiler's layout, field by field."""

import ctypes
import re
import struct
import zlib
from pathlib import Path
from types import ModuleType

import pytest

from tests import event_layout
from tests.harness.compiler import BPF, evaluate, field_names, struct_text
from tracer.capture import brief, engine_core, programs, wire
from tracer.linux import procfs
from tracer.reading import procfs_reader

EVENT_H = (BPF / "event.h").read_text()
Layout = dict[str, tuple[int, int, bool]]
"""Field -> offset, size, and whether it is signed."""

LENGTHS = ("cgroup_len", "exe_len", "cmdline_len")
SIGKILL_LENGTHS = ("cgroup_len", "sender_cgroup_len")
INCIDENT_LENGTHS = ("message_len", "limit_cgroup_len", "trigger_cgroup_len")
HEAD = wire.HEADER.size
INCIDENT_END = HEAD + wire.INCIDENT_FIXED.size
STAT_AT = INCIDENT_END + wire.MEMCG_COUNTERS.size
CANDIDATES_AT = STAT_AT + wire.MEMCG_STAT.size


def spread(form: struct.Struct, names: tuple[str, ...], at: int = 0) -> Layout:
    """The layout of a format whose fields have those names and which begins at ``at``."""
    found = []
    for repeat, code in re.findall(r"(\d*)([a-zA-Z?])", form.format):
        if code == "x":
            at += int(repeat or 1)
            continue
        times, size = (1, int(repeat)) if code == "s" else (int(repeat or 1), struct.calcsize("=" + code))
        for _ in range(times):
            found.append((at, size, code in "bhiq"))
            at += size
    return dict(zip(names, found, strict=True))


STRUCTS: dict[str, Layout] = {
    "event": spread(wire.HEADER, wire.Header._fields),
    "ancestor": spread(wire.ANCESTOR, wire.AncestorEntry._fields),
    "candidate": spread(wire.CANDIDATE, wire.CandidateEntry._fields),
    "memcg_counters": spread(wire.MEMCG_COUNTERS, wire.MemcgCounters._fields),
    "memcg_stat": spread(wire.MEMCG_STAT, wire.MemcgStat._fields),
    "victim_event": {
        **spread(wire.VICTIM_FIXED, (*wire.VictimEvent._fields[1:-5], *LENGTHS), HEAD),
        "ancestors": (HEAD + wire.VICTIM_FIXED.size, wire.ANCESTORS_MAX * wire.ANCESTOR.size, False),
        "strings": (
            HEAD + wire.VICTIM_FIXED.size + wire.ANCESTORS_MAX * wire.ANCESTOR.size,
            4096 + 4096 + procfs.CMDLINE_LEN,
            False,
        ),
    },
    "incident_event": {
        **spread(wire.INCIDENT_FIXED, (*wire.IncidentEvent._fields[1:-6], *INCIDENT_LENGTHS), HEAD),
        "limit": (INCIDENT_END, wire.MEMCG_COUNTERS.size, False),
        "stat": (STAT_AT, wire.MEMCG_STAT.size, False),
        "candidates": (CANDIDATES_AT, wire.CANDIDATES_MAX * wire.CANDIDATE.size, False),
        "strings": (CANDIDATES_AT + wire.CANDIDATES_MAX * wire.CANDIDATE.size, 64 + 4096 + 4096, False),
    },
    "shared_mm_event": spread(wire.SHARED_MM_FIXED, wire.SharedMmEvent._fields[1:], HEAD),
    "killed_again_event": spread(wire.KILLED_AGAIN_FIXED, wire.KilledAgainEvent._fields[1:], HEAD),
    "exit_event": spread(wire.EXIT_FIXED, wire.ExitEvent._fields[1:], HEAD),
    "memcg_chain_event": {
        **spread(wire.MEMCG_CHAIN_FIXED, ("memcg_chain_len",), HEAD),
        "memcg_chain": (HEAD + wire.MEMCG_CHAIN_FIXED.size, wire.MEMCG_CHAIN_MAX * wire.MEMCG_COUNTERS.size, False),
    },
    "cgroup_event": {
        **spread(wire.CGROUP_FIXED, ("len",), HEAD),
        "path": (HEAD + wire.CGROUP_FIXED.size, 4096, False),
    },
    "log_event": {
        **spread(wire.LOG_FIXED, ("len",), HEAD),
        "text": (HEAD + wire.LOG_FIXED.size, 1024, False),
    },
    "brief_event": spread(brief.BRIEF_FIXED, brief.BriefFields._fields, HEAD),
    "log_brief_event": spread(brief.LOG_BRIEF_FIXED, ("message",), HEAD),
    "sigkill_event": {
        **spread(wire.SIGKILL_FIXED, (*wire.SigkillEvent._fields[1:-2], *SIGKILL_LENGTHS), HEAD),
        "strings": (HEAD + wire.SIGKILL_FIXED.size, 64 + 4096 + 4096, False),
    },
}


def compiled(source: str, kind: str, names: list[str], folder: Path) -> Layout:
    """The compiler's layout of the fields."""
    asked = []
    for name in names:
        field = f"(({kind} *)0)->{name}"
        signed = f"_Generic({field}, __s8: 1, __s16: 1, __s32: 1, __s64: 1, default: 0)"
        asked += [f"offsetof({kind}, {name})", f"sizeof({field})", signed]
    values = list(evaluate(source, asked, folder).values())
    each = zip(values[0::3], values[1::3], map(bool, values[2::3]), strict=True)
    return dict(zip(names, each, strict=True))


@pytest.mark.parametrize("module", [wire, brief])
def test_mirror_is_current(module: ModuleType) -> None:
    """The mirror is what `make layout` writes."""
    path = Path(str(module.__file__))
    assert event_layout.render(path.name, path.read_text(), EVENT_H) == path.read_text()


def test_layout_version(tmp_path: Path) -> None:
    """Both languages have the same EVENT_LAYOUT."""
    assert evaluate('#include "event.h"', ["EVENT_LAYOUT"], tmp_path) == {"EVENT_LAYOUT": wire.EVENT_LAYOUT}


def test_layout_version_rises() -> None:
    """Changed structs are another layout: increment EVENT_LAYOUT, once per release, and update the checksum.

    The checksum includes the names: a pure rename changes only the checksum.
    """
    assert (wire.EVENT_LAYOUT, zlib.crc32(repr(sorted(STRUCTS.items())).encode())) == (3, 2004703605)


def test_all_structs_are_here() -> None:
    """All structs of event.h are compared."""
    assert set(re.findall(r"^struct (\w+) \{", EVENT_H, re.MULTILINE)) == STRUCTS.keys()


@pytest.mark.parametrize("name", STRUCTS)
def test_struct(name: str, tmp_path: Path) -> None:
    """Every field except padding has the format's offset and size."""
    names = [field for field in field_names(struct_text(EVENT_H, f"struct {name} {{")) if field not in ("event", "pad")]
    assert STRUCTS[name] == compiled('#include "event.h"', f"struct {name}", names, tmp_path)


@pytest.mark.parametrize("name", ["event", "candidate", "memcg_counters", "memcg_stat"])
def test_inner_struct_has_no_tail(name: str, tmp_path: Path) -> None:
    """A struct inside others has no padding at its end."""
    size = evaluate('#include "event.h"', [f"sizeof(struct {name})"], tmp_path)[f"sizeof(struct {name})"]
    assert max(at + length for at, length, _ in STRUCTS[name].values()) == size


@pytest.mark.parametrize("enum", ["victim_flags", "incident_flags", "sigkill_flags", "brief_flags"])
def test_flags(enum: str, tmp_path: Path) -> None:
    """Both languages have the same flags with the same values."""
    names = re.findall(r"^\t(\w+) =", struct_text(EVENT_H, f"enum {enum} {{"), re.MULTILINE)
    prefix = names[0].partition("_")[0] + "_"
    both = {**vars(wire), **vars(brief)}
    mirrored = {name: value for name, value in both.items() if name.startswith(prefix) and type(value) is int}
    assert mirrored == evaluate('#include "event.h"', names, tmp_path)


def test_event_types(tmp_path: Path) -> None:
    """Every event type has the same number in both languages, and a decoder."""
    names = re.findall(r"^\t(EVENT_\w+) =", EVENT_H, re.MULTILINE)
    values = evaluate('#include "event.h"', names, tmp_path)
    mirrored = {**vars(wire), **vars(brief)}
    assert {name: mirrored[name.removeprefix("EVENT_")] for name in names} == values
    assert sorted([*wire._DECODERS, brief.BRIEF, brief.LOG_BRIEF]) == sorted(values.values())


def test_brief(tmp_path: Path) -> None:
    """Constants and messages of kills in brief match the C source."""
    text = (BPF / "brief.h").read_text()
    bytes_kept = re.search(r"^#define PATHS_BYTES (.*)$", text, re.MULTILINE)
    assert bytes_kept is not None
    asked = ["BRIEF_UNKNOWN_PAGES", "BRIEF_NO_LEVEL", "MESSAGE_OTHER", "MESSAGE_MEMCG", "MESSAGE_HOST", bytes_kept[1]]
    values = list(evaluate('#include "event.h"', asked, tmp_path).values())
    assert values == [brief.UNKNOWN_PAGES, brief.NO_LEVEL, 0, 1, 2, brief.PATHS_BYTES]
    for message in brief.LOG_MESSAGES[1:]:
        assert f'"{message.decode().partition("Killed")[0]}"' in text


def test_array_lengths(tmp_path: Path) -> None:
    """Arrays have the same lengths in both languages."""
    values = evaluate(
        '#include "event.h"', ["CANDIDATES_MAX", "MEMCG_CHAIN_MAX", "ANCESTORS_MAX", "CMDLINE_LEN"], tmp_path
    )
    assert list(values.values()) == [wire.CANDIDATES_MAX, wire.MEMCG_CHAIN_MAX, wire.ANCESTORS_MAX, procfs.CMDLINE_LEN]


@pytest.mark.parametrize(
    ("header", "opening", "mirror"),
    [
        pytest.param("incident.h", "struct cmdline {", procfs_reader._Cmdline, id="cmdline"),
        pytest.param("engine.h", "const volatile struct {", engine_core.RawSettings, id="settings"),
    ],
)
def test_ctypes(header: str, opening: str, mirror: type[ctypes.Structure], tmp_path: Path) -> None:
    """Structs that Python writes have the programs' layout."""
    text = struct_text((BPF / header).read_text(), opening)
    names = field_names(text)
    source = '#include "event.h"\nstruct mirrored {' + text.partition("{")[2] + ";"
    expected = {name: (getattr(mirror, name).offset, getattr(mirror, name).size, False) for name, *_ in mirror._fields_}
    assert expected == compiled(source, "struct mirrored", names, tmp_path)
    size = evaluate(source, ["sizeof(struct mirrored)"], tmp_path)["sizeof(struct mirrored)"]
    assert ctypes.sizeof(mirror) == size


def test_all_settings_are_set() -> None:
    """Both engines set every setting that the programs use."""
    asked = {name for file in BPF.rglob("*.[ch]") for name in re.findall(r"\bsetting\((\w+)\)", file.read_text())}
    asked.discard("name")  # the macro itself
    assert asked == set(programs.Settings._fields)
    assert asked == {name for name, *_ in engine_core.RawSettings._fields_} - {"pad"}


def test_counters() -> None:
    """The programs' counters have the same numbers in both languages."""
    enum = struct_text((BPF / "incident.h").read_text(), "enum counter {")
    names = re.findall(r"^\t(COUNTER_\w+),", enum, re.MULTILINE)
    assert list(range(len(names))) == [getattr(programs, name) for name in names]
