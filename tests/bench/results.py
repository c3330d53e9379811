# SPDX-License-Identifier: Apache-2.0
"""Measurements of one machine, real or virtual; a VM returns them as JSON."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .bpf_time import ProgramCost
from .containers import NameCost
from .measure import Figures


@dataclass
class Results:
    where: str
    figures: dict[str, Figures] = field(default_factory=dict)
    """By tool."""
    programs: dict[str, list[ProgramCost]] = field(default_factory=dict)
    containers: list[NameCost] = field(default_factory=list)
    """Cost of names on a host with many containers."""
    notes: list[str] = field(default_factory=list)

    def get(self, tool: str, figure: str) -> float | None:
        return self.figures.get(tool, {}).get(figure)

    def dump(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def load(cls, text: str) -> "Results":
        results = cls(**json.loads(text))
        results.programs = {tool: [ProgramCost(*row) for row in rows] for tool, rows in results.programs.items()}
        results.containers = [NameCost(*row) for row in results.containers]
        return results


def load_average() -> str:
    one, five, _ = os.getloadavg()
    return f"{one:.1f} over 1 min, {five:.1f} over 5 min"


def kernel() -> str:
    return f"Linux {os.uname().release}, {os.cpu_count()} CPUs, {_processor()}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine
