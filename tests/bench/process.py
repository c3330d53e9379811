# SPDX-License-Identifier: Apache-2.0
"""What /proc says of a process: memory, processor time, children, BPF programs."""

import os
import re
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int, field: str) -> float:
    """VmRSS (now) or VmHWM (the most it ever was), in units of 1,000,000 bytes; 0 where the process has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def cpu_s(pid: int) -> float:
    """utime + stime."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * TICK_S


def children(pid: int) -> list[int]:
    """Direct children that live."""
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
    """Ids of the programs that its descriptors, or links among them, hold."""
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        match = re.search(r"^prog_id:\s+(\d+)$", path.read_text(), re.MULTILINE)
        if match:
            found.add(int(match[1]))
    return found


def _stat(pid: int) -> list[str]:
    """The fields behind the name, which may hold spaces and parentheses; [0] is the state."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
