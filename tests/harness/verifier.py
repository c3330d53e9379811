# SPDX-License-Identifier: Apache-2.0
"""Statistics of the BPF verifier for each program, compared with the recorded ones.

python3 -m tests.harness.verifier [KERNEL...]    writes the record, for this kernel and for these in QEMU

The statistics depend on kernel, architecture and compiler, so each combination has its own record.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from tracer.capture import engine_core
from tracer.capture.programs import Settings
from tracer.linux import libbpf

from . import DATA, ROOT
from .environment import KERNEL, KERNEL_VERSION

RECORD = DATA / "verifier.json"
RESULTS = ROOT / "build/vm/results/partial"
MODES = {"kprobes": 1, "tracepoints": 0}
"""Values of the setting ``kprobes``, a constant for the verifier, which prunes what it disables."""
HEADROOM = 0.75
"""Share of the kernel's limit that a program may use; other compilers and kernels may need more."""
GROWTH = 1.1
_LOG_STATS = 4
"""BPF_LOG_STATS in include/linux/bpf_verifier.h.

Since Linux kernel commit 06ee7115b0d1 ("bpf: add verifier stats and log_level bit 2") (in v5.2)
"""
_LOG_BYTES = 4096
_STACK_BYTES = 512
"""MAX_BPF_STACK in include/linux/filter.h."""
_STATISTICS = re.compile(
    # The combined depth, or that of each function.
    r"stack depth (?:max )?(?P<stack>[\d+]+)\n(?:.*\n)*?processed (?P<instructions>\d+) insns \(limit (?P<limit>\d+)\) "
    r"max_states_per_insn \d+ total_states (?P<states>\d+)"
)


class Statistics(NamedTuple):
    """Statistics of one program."""

    instructions: int
    """Instructions processed, on all paths."""
    states: int
    """States kept for pruning."""
    stack_bytes: int
    limit: int
    """Instructions that this kernel processes before it rejects a program."""

    def kept(self) -> dict[str, int]:
        """The part that is recorded."""
        return {"instructions": self.instructions, "states": self.states, "stack_bytes": self.stack_bytes}


SLACK = {"instructions": 64, "states": 8, "stack_bytes": 8}
"""Allowed growth of any program, however small."""


def parse(log: str) -> Statistics:
    """The statistics at the end of a program's log."""
    found = _STATISTICS.search(log)
    assert found, f"no statistics in {log!r}"
    program, *functions = (int(depth) for depth in found["stack"].split("+"))
    stack = program + max(functions, default=0)  # functions that a program calls call no others
    return Statistics(int(found["instructions"]), int(found["states"]), stack, int(found["limit"]))


def measure(kprobes: int) -> dict[str, Statistics]:
    """Load every program as the daemon does.

    Raises OSError if the verifier rejects one.
    """
    library = libbpf.library()
    library.bpf_program__set_log_level.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.bpf_program__set_log_buf.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    opened = engine_core.open_object()
    logs = {}
    try:
        settings = Settings(cpus=2, kprobes=kprobes, stats_index=0, stats_index_size=0, sigkill=2)
        engine_core._configure_object(opened, settings, 4096)
        program = library.bpf_object__next_program(opened, None)
        while program:
            log = ctypes.create_string_buffer(_LOG_BYTES)
            logs[library.bpf_program__name(program).decode()] = log
            library.bpf_program__set_log_level(program, _LOG_STATS)
            library.bpf_program__set_log_buf(program, log, _LOG_BYTES)
            program = library.bpf_object__next_program(opened, program)
        if library.bpf_object__load(opened):
            raise libbpf.last_error()
    finally:
        library.bpf_object__close(opened)
    return {name: parse(log.value.decode()) for name, log in logs.items()}


def excessive(measured: Mapping[str, Statistics]) -> list[str]:
    """Programs that exceed their share of the kernel's limits."""
    return [
        f"{name}: {found}"
        for name, found in measured.items()
        if found.instructions > HEADROOM * found.limit or found.stack_bytes > _STACK_BYTES
    ]


def grown(measured: Mapping[str, Statistics], recorded: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Programs that exceed the record, or are not in it."""
    found = [f"{name}: not in the record" for name in measured if name not in recorded]
    found += [f"{name}: only in the record" for name in recorded if name not in measured]
    for name in measured.keys() & recorded.keys():
        for figure, value in measured[name].kept().items():
            before = recorded[name][figure]
            if value > max(GROWTH * before, before + SLACK[figure]):
                found.append(f"{name}: {value} {figure}, recorded {before}")
    return sorted(found)


def clang() -> str:
    """Major version of the compiler of the programs; in a guest, without a compiler, from $OOMTRACE_CLANG."""
    if given := os.environ.get("OOMTRACE_CLANG"):
        return given
    version = subprocess.run(["clang", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)", version)
    assert found
    return found[1]


def kernel() -> str:
    """This kernel's name in the record."""
    return f"{'.'.join(map(str, KERNEL_VERSION))} {platform.machine()}"


def entry(measured: Mapping[str, Mapping[str, Statistics]]) -> dict[str, Any]:
    """The record of a kernel: its release, and statistics by mode."""
    programs = {mode: {name: each.kept() for name, each in found.items()} for mode, found in measured.items()}
    return {"release": KERNEL, **programs}


def load() -> dict[str, dict[str, Any]]:
    """The record of this compiler: kernel -> release, and programs by mode."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return dict(record.get(f"clang {clang()}", {}))


def _in_guest(label: str) -> dict[str, dict[str, Any]]:
    """The statistics that the test writes into its results in a guest, whether it passes or not."""
    results = RESULTS / f"{label}-cgroup2-core.xml"
    results.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.vm.run", "--kernel", label, "tests/kernel/test_verifier.py"]
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr)
    return _read(results)


def _read(results: Path) -> dict[str, dict[str, Any]]:
    properties = ElementTree.parse(results).iter("property")  # noqa: S314 - our own
    found = [each.attrib["value"] for each in properties if each.attrib["name"] == "verifier"]
    if len(found) != 1:
        raise SystemExit(f"verifier: {results} has no statistics")
    return dict([json.loads(found[0])])


def _write(kernels: Mapping[str, Mapping[str, Any]]) -> None:
    """Add these to the record."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    own = record.setdefault(f"clang {clang()}", {})
    own.update(kernels)
    record[f"clang {clang()}"] = dict(sorted(own.items()))
    text = json.dumps(record, indent=1)
    # One program per line, for readable diffs.
    text = re.sub(r'\{\s*("instructions[^{}]*?)\s*\}', lambda each: "{" + " ".join(each[1].split()) + "}", text)
    RECORD.write_text(text + "\n")


def main() -> int:
    _write({kernel(): entry({mode: measure(kprobes) for mode, kprobes in MODES.items()})})
    for label in sys.argv[1:]:
        _write(_in_guest(label))
    return 0


if __name__ == "__main__":
    sys.exit(main())
