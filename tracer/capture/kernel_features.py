# SPDX-License-Identifier: Apache-2.0
"""Features of the running kernel, tested one by one: versions say little, because distributions backport."""

import os
import re
from typing import NamedTuple

from tracer.capture.programs import Hook

BTF = "/sys/kernel/btf/vmlinux"
KALLSYMS = "/proc/kallsyms"
LOCKDOWN = "/sys/kernel/security/lockdown"
KPROBE_PMU = "/sys/bus/event_source/devices/kprobe/type"
TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")

_FUNCTIONS = ("out_of_memory", "oom_badness", "oom_kill_process", "__oom_kill_process", "mark_oom_victim")
_NAMES = "|".join((*_FUNCTIONS, "mem_cgroup_stats_index")).encode()
_SYMBOL = re.compile(rb"([0-9a-f]+) [tTdDbBrR] (" + _NAMES + rb")(\.\S+)?\s")
_TRACEPOINTS = (
    Hook("on_mark_victim", "raw_tp", "mark_victim"),
    Hook("on_signal_generate", "raw_tp", "signal_generate"),
    Hook("on_cgroup_mkdir", "raw_tp", "cgroup_mkdir"),
    Hook("on_exec", "raw_tp", "sched_process_exec"),
    Hook("on_exec_again", "raw_tp", "sched_process_exec"),
    Hook("on_exit", "raw_tp", "sched_process_exit"),
    Hook("on_exit_signal", "raw_tp", "signal_generate"),
    Hook("on_free", "raw_tp", "sched_process_free"),
)
_CONSOLE = Hook("on_console", "raw_tp", "console")

REQUIRED = frozenset({"on_mark_victim", "on_signal_generate"})
REQUIRED_KPROBES = frozenset({"on_oom_kill_process", "on_oom_kill_process_return", "on_do_oom_kill_process"})


class SymbolRange(NamedTuple):
    """Address and largest possible size in bytes of a kernel symbol; 0 if /proc/kallsyms does not show it."""

    address: int
    size: int


NO_SYMBOL = SymbolRange(0, 0)


class KernelFeatures(NamedTuple):
    btf: bool
    kprobes: bool
    """Kprobes are available, and so are the functions of the OOM path."""
    symbols: dict[str, tuple[str, ...]]
    """Function -> its symbols in this kernel (compilers add .isra.0, .part.0, ...)."""
    stats_index: SymbolRange
    """The table mem_cgroup_stats_index (bpf/memcg.h)."""


def read_symbols(path: str = KALLSYMS) -> tuple[dict[str, tuple[str, ...]], SymbolRange]:
    """The OOM path's functions and the range of mem_cgroup_stats_index; empty if hidden or unreadable."""
    names: dict[str, list[str]] = {}
    address = size = 0
    try:
        with open(path, "rb", buffering=1 << 16) as lines:
            for line in lines:
                if address and not size:  # symbols are sorted by address
                    size = int(line.split()[0], 16) - address
                # Substrings of all symbols: in 150,000 lines searching is much faster than matching.
                if not (b"oom_" in line or b"out_of_m" in line or b"stats_index" in line):
                    continue
                match = _SYMBOL.fullmatch(line)
                if match is None:
                    continue
                name, suffix = match[2].decode(), (match[3] or b"").decode()
                if name == "mem_cgroup_stats_index":
                    address = int(match[1], 16)
                elif ".cold" not in suffix:  # no call enters the unlikely part of a function
                    names.setdefault(name, []).append(name + suffix)
    except OSError:
        return {}, NO_SYMBOL
    return {name: tuple(sorted(found)) for name, found in names.items()}, SymbolRange(address, max(size, 0))


def detect_features() -> KernelFeatures:
    pmu = os.path.exists(KPROBE_PMU)
    symbols, stats_index = read_symbols() if pmu else ({}, NO_SYMBOL)  # only kprobes need them
    return KernelFeatures(
        btf=os.path.exists(BTF),
        kprobes=pmu and {"oom_kill_process", "__oom_kill_process"} <= symbols.keys(),
        symbols=symbols,
        stats_index=stats_index,
    )


def find_tracefs() -> str | None:
    """The mount point of tracefs, if it can be read."""
    return next((path for path in TRACEFS if os.path.exists(f"{path}/events")), None)


def choose_hooks(features: KernelFeatures, kprobes: bool) -> tuple[Hook, ...]:
    """The hooks to attach.  A function is hooked by its plain name, or else by the one that the compiler gave it."""
    if not kprobes:
        return (*_TRACEPOINTS, _CONSOLE)
    found: list[Hook] = []

    def add(program: str, function: str, *kinds: str, every: bool = False) -> None:
        names = features.symbols.get(function, ())
        for name in names if every else names[:1]:
            found.extend(
                Hook(program + ("_return" if kind == "kretprobe" else ""), kind, name)  # type: ignore[arg-type]
                for kind in kinds
            )

    add("on_out_of_memory", "out_of_memory", "kprobe")
    # In some builds (Debian's 5.10) the OOM path calls only a split copy, oom_badness.part.0.
    add("on_oom_badness", "oom_badness", "kprobe", "kretprobe", every=True)
    add("on_oom_kill_process", "oom_kill_process", "kprobe", "kretprobe")
    add("on_do_oom_kill_process", "__oom_kill_process", "kprobe")
    add("on_mark_oom_victim", "mark_oom_victim", "kprobe")
    return (*found, *_TRACEPOINTS)
