# SPDX-License-Identifier: Apache-2.0
"""Memory, CPU time, children and BPF programs of a process, from /proc."""

import os
import re
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int, field: str) -> float:
    """VmRSS (current) or VmHWM (peak), in units of 1,000,000 bytes; 0 if the process has exited."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def cpu_s(pid: int) -> float:
    """utime + stime in seconds."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * TICK_S


def children(pid: int) -> list[int]:
    """Pids of the direct children."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if int(_stat(int(entry.name))[1]) == pid:
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def bpf_programs(pid: int) -> set[int]:
    """Ids of the programs held by its descriptors, directly or through links."""
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        match = re.search(r"^prog_id:\s+(\d+)$", path.read_text(), re.MULTILINE)
        if match:
            found.add(int(match[1]))
    return found


def _stat(pid: int) -> list[str]:
    """The fields after comm, which may contain spaces and parentheses; [0] is the state."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
