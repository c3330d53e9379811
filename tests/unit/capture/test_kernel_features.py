# SPDX-License-Identifier: Apache-2.0
"""kernel_features.py: symbols of a kernel, and the hooks chosen for it."""

import re
from pathlib import Path

import pytest

from tests.harness.compiler import BPF
from tracer.capture.kernel_features import (
    NO_SYMBOL,
    REQUIRED,
    REQUIRED_KPROBES,
    KernelFeatures,
    SymbolRange,
    choose_hooks,
    read_symbols,
)
from tracer.capture.programs import Hook

# Debian's 6.12, shortened, with addresses as shown to root.
PLAIN = """\
ffffffff81000000 T _stext
ffffffff812e1230 T oom_badness
ffffffff812e1400 t oom_kill_process
ffffffff812e1a10 t __oom_kill_process
ffffffff812e1f00 t mark_oom_victim
ffffffff812e2000 T out_of_memory
ffffffff812e3000 T pagefault_out_of_memory
ffffffff812e3100 T process_shares_mm_oom_badness
ffffffff82a00000 d mem_cgroup_stats_index
ffffffff82a00040 d mem_cgroup_events_index
ffffffffc0000000 t oom_kill_process\t[lookalike]
"""
EVERYTHING = KernelFeatures(
    btf=True,
    kprobes=True,
    symbols={
        name: (name,)
        for name in ("out_of_memory", "oom_badness", "oom_kill_process", "__oom_kill_process", "mark_oom_victim")
    },
    stats_index=NO_SYMBOL,
)


def symbols(tmp_path: Path, text: str) -> tuple[dict[str, tuple[str, ...]], SymbolRange]:
    """The symbols read from a /proc/kallsyms with this text."""
    path = tmp_path / "kallsyms"
    path.write_text(text)
    return read_symbols(str(path))


def test_plain_names(tmp_path: Path) -> None:
    """Functions of the kernel are found; those of modules and with longer names are not."""
    found, table = symbols(tmp_path, PLAIN)
    assert EVERYTHING.symbols == found
    assert SymbolRange(0xFFFFFFFF82A00000, 0x40) == table


@pytest.mark.parametrize("suffix", ["", ".isra.0", ".part.0", ".constprop.0", ".constprop.0.isra.0", ".llvm.123"])
def test_suffixes(suffix: str, tmp_path: Path) -> None:
    """A function is found under the name that the compiler gave it."""
    found, _ = symbols(tmp_path, f"ffffffff812e1400 t oom_kill_process{suffix}\n")
    assert {"oom_kill_process": (f"oom_kill_process{suffix}",)} == found


@pytest.mark.parametrize("suffix", [".cold", ".cold.12", ".isra.0.cold", ".part.0.cold"])
def test_cold_halves(suffix: str, tmp_path: Path) -> None:
    """The unlikely part of a function is not hooked."""
    found, _ = symbols(tmp_path, f"ffffffff812e1400 t oom_badness{suffix}\nffffffff812e1500 t oom_badness.part.0\n")
    assert found == {"oom_badness": ("oom_badness.part.0",)}


def test_plain_name_first(tmp_path: Path) -> None:
    """A function comes before its split copy."""
    found, _ = symbols(tmp_path, "ffffffff8100 t oom_badness.part.0\nffffffff8200 T oom_badness\n")
    assert found["oom_badness"] == ("oom_badness", "oom_badness.part.0")


def test_hidden_addresses(tmp_path: Path) -> None:
    """Without privileges every address is 0: functions are found, the table is not."""
    found, table = symbols(tmp_path, re.sub("^f[0-9a-f]+", "0" * 16, PLAIN, flags=re.MULTILINE))
    assert EVERYTHING.symbols == found
    assert table == NO_SYMBOL


@pytest.mark.parametrize("text", ["", "nonsense\n", "zzzz t oom_badness\n", "\n\n", "ffffffff8100 t\n"])
def test_nothing_to_read(text: str, tmp_path: Path) -> None:
    """A file may have no symbols."""
    assert symbols(tmp_path, text) == ({}, NO_SYMBOL)


def test_unreadable(tmp_path: Path) -> None:
    """An unreadable file has no symbols."""
    assert read_symbols(str(tmp_path / "nowhere")) == ({}, NO_SYMBOL)
    assert read_symbols(str(tmp_path)) == ({}, NO_SYMBOL)


def targets(found: tuple[Hook, ...]) -> list[str]:
    return [f"{hook.kind}:{hook.target}" for hook in found]


TRACEPOINTS = [
    "raw_tp:mark_victim",
    "raw_tp:signal_generate",
    "raw_tp:cgroup_mkdir",
    "raw_tp:sched_process_exec",
    "raw_tp:sched_process_exec",  # two programs: the kernel may skip the first
    "raw_tp:sched_process_exit",
    "raw_tp:signal_generate",  # SIGCHLD, for when the kernel skips the exit's program
    "raw_tp:sched_process_free",
]


def test_hooks_with_kprobes() -> None:
    """With kprobes the complete OOM path is hooked, and the console is not."""
    assert [
        "kprobe:out_of_memory",
        "kprobe:oom_badness",
        "kretprobe:oom_badness",
        "kprobe:oom_kill_process",
        "kretprobe:oom_kill_process",
        "kprobe:__oom_kill_process",
        "kprobe:mark_oom_victim",
        *TRACEPOINTS,
    ] == targets(choose_hooks(EVERYTHING, kprobes=True))


def test_hooks_without_kprobes() -> None:
    """Without kprobes the tracepoints are hooked, and the console."""
    assert [*TRACEPOINTS, "raw_tp:console"] == targets(choose_hooks(EVERYTHING, kprobes=False))


def test_split_functions() -> None:
    """Every copy of oom_badness() is hooked; of other functions only the one that is called."""
    split = {
        **EVERYTHING.symbols,
        "oom_badness": ("oom_badness", "oom_badness.part.0"),
        "oom_kill_process": ("oom_kill_process", "oom_kill_process.isra.0"),
    }
    found = targets(choose_hooks(EVERYTHING._replace(symbols=split), kprobes=True))
    assert [target for target in found if "badness" in target] == [
        "kprobe:oom_badness",
        "kretprobe:oom_badness",
        "kprobe:oom_badness.part.0",
        "kretprobe:oom_badness.part.0",
    ]
    assert [target for target in found if ":oom_kill" in target] == [
        "kprobe:oom_kill_process",
        "kretprobe:oom_kill_process",
    ]


@pytest.mark.parametrize("missing", ["out_of_memory", "oom_badness", "mark_oom_victim"])
def test_inlined_function(missing: str) -> None:
    """Inlined functions are not hooked; the others are."""
    fewer = {name: names for name, names in EVERYTHING.symbols.items() if name != missing}
    found = choose_hooks(EVERYTHING._replace(symbols=fewer), kprobes=True)
    assert {hook for hook in choose_hooks(EVERYTHING, kprobes=True) if hook.target != missing} == set(found)
    assert {hook.program for hook in found} >= REQUIRED | REQUIRED_KPROBES


@pytest.mark.parametrize("kprobes", [False, True])
def test_hooks_are_programs(kprobes: bool) -> None:
    """Every hook's program is in the C source, with the hook's kind."""
    source = "".join(file.read_text() for file in (BPF / "hooks").iterdir())
    sections = re.findall(r'^SEC\("(\w+)/(\w+)"\)\nint (\w+)\(', source, re.MULTILINE)
    assert {(hook.program, hook.kind, hook.target) for hook in choose_hooks(EVERYTHING, kprobes)} <= {
        (program, kind, target) for kind, target, program in sections
    }


def test_every_program_is_used() -> None:
    """Every program in the C source has a hook."""
    source = "".join(file.read_text() for file in (BPF / "hooks").iterdir())
    programs = re.findall(r'^SEC\("\w+/\w+"\)\nint (\w+)\(', source, re.MULTILINE)
    assert sorted(programs) == sorted({hook.program for way in (False, True) for hook in choose_hooks(EVERYTHING, way)})
