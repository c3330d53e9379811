# SPDX-License-Identifier: Apache-2.0
"""Makes tables from results, as text and Markdown, and checks the goals."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .measure import Figures
from .results import Results
from .tools import BCC, BPFTRACE, CORE

RSS_MB = 20
ATTACH_S = 0.5


class Row(NamedTuple):
    label: str
    figure: str
    digits: int = 0
    ratio: bool = True


ROWS = (
    Row("start to ready sign, s", "attach_s", 3),
    Row("start to first kill caught, s", "caught_s", 3),
    Row("kills missed after the ready sign", "missed", ratio=False),
    Row("RSS when idle, MB", "rss_mb", 1),
    Row("peak RSS of its process, MB", "hwm_mb", 1),
    Row("peak RSS, children included, MB", "peak_mb", 1),
    Row("CPU when idle, %", "idle_percent", 2, ratio=False),
    Row("kill to line, median, ms", "latency_ms", 2),
    Row("kill to line, p99, ms", "latency_p99_ms", 2),
    Row("  of so many kills", "latency_kills", ratio=False),
    Row("all tools at once: median, ms", "together_ms", 2),
    Row("all tools at once: p99, ms", "together_p99_ms", 2),
    Row("storm: kills", "storm_kills", ratio=False),
    Row("storm: lines", "storm_lines", ratio=False),
    Row("storm: said to be lost", "storm_lost", ratio=False),
    Row("storm: kills per second", "storm_per_s"),
    Row("storm: last kill to last line, ms", "storm_behind_ms", 1),
    Row("storm: CPU time of the tool a kill, ms", "storm_cpu_ms", 2),
    Row("BPF programs' run time a kill, µs", "bpf_us", 1),
    Row("group kill: killed", "group_kills", ratio=False),
    Row("group kill: lines", "group_lines", ratio=False),
)


class Goal(NamedTuple):
    text: str
    found: str
    met: bool


def goals(machines: dict[str, Results], native: Results | None) -> list[Goal]:
    """Check oomtrace's goals; a missing figure is a missed goal."""
    found = []
    for where, results in machines.items():
        for tool in (CORE.name, BCC.name):
            storm, rss = results.get(tool, "storm_percent"), results.get(tool, "rss_mb")
            found += [
                _goal(
                    f"{tool}, {where}: a line for every kill of the storm", storm, "{:g} %", lambda found: found == 100
                ),
                _goal(f"{tool}, {where}: RSS below {RSS_MB} MB", rss, "{:.1f} MB", lambda found: found < RSS_MB),
            ]
    if native is not None:
        attach = native.get(CORE.name, "attach_s")
        found.append(
            _goal(f"{CORE.name}: attached in less than {ATTACH_S} s", attach, "{:.3f} s", lambda s: s < ATTACH_S)
        )
        bound = native.get(BPFTRACE.name, "latency_ms")
        for tool in (CORE.name, BCC.name):
            latency = native.get(tool, "latency_ms") if bound is not None else None
            form = f"{{:.3f}} ms, bpftrace {bound:.3f} ms" if bound is not None else "{}"
            found.append(
                _goal(f"{tool}: median latency not above bpftrace's", latency, form, lambda ms: ms <= (bound or 0))
            )
    return found


def _goal(text: str, value: float | None, form: str, met: Callable[[float], bool]) -> Goal:
    return Goal(text, "not measured", False) if value is None else Goal(text, form.format(value), met(value))


def _cell(row: Row, figures: Figures, reference: Figures) -> str:
    value, base = figures.get(row.figure), reference.get(row.figure)
    if value is None:
        return "-"
    text = f"{value:.{row.digits}f}"
    return f"{text} ({value / base:.2g})" if row.ratio and base and figures is not reference else text


def table(results: Results) -> list[list[str]]:
    """Header and rows; in brackets after a figure, its ratio to that of oomtrace core."""
    tools = list(results.figures)
    reference = results.figures[CORE.name]
    lines = [["", *tools]]
    for row in ROWS:
        if any(figures.get(row.figure) is not None for figures in results.figures.values()):
            lines.append([row.label, *(_cell(row, results.figures[tool], reference) for tool in tools)])
    return lines


def programs(results: Results) -> list[list[str]]:
    """Header and rows: the cost of each BPF program."""
    lines = [["tool", "BPF program", "runs a kill", "ns a run", "µs a kill"]]
    for tool, found in results.programs.items():
        for each in found:
            figures = f"{each.runs_per_kill:.2f}", f"{each.ns_per_run:.0f}", f"{each.us_per_kill:.2f}"
            lines.append([tool, each.name, *figures])
    return lines


def plain(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """Aligned columns: the first ones to the left, others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "".join(
        "  ".join(
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        + "\n"
        for line in lines
    )


def markdown(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    header, *rows = [f"| {' | '.join(line)} |\n" for line in lines]
    rule = ["---" if column < left else "--:" for column in range(len(lines[0]))]
    return "".join([header, f"| {' | '.join(rule)} |\n", *rows])


def write(machines: dict[str, Results], judged: Sequence[Goal], *, as_markdown: bool) -> str:
    """The whole report."""
    render, heading, bullet = (markdown, "## ", "- ") if as_markdown else (plain, "", "  ")
    parts = ["# Benchmark\n\n"] if as_markdown else []
    for where, results in machines.items():
        parts += [f"{heading}{where}: {results.where}\n\n", render(table(results), 1), "\n"]
        if results.programs:
            parts += [render(programs(results), 2), "\n"]
        if results.containers:
            costs = [[row.label, f"{row.value:.{row.digits}f}"] for row in results.containers]
            parts += [render([["names of containers", ""], *costs], 1), "\n"]
        parts += [*(f"{bullet}{note}\n" for note in results.notes), "\n"]
    parts.append("In brackets: ratio to oomtrace core.  MB: 1,000,000 bytes.\n\n")
    parts.append(render([["goal", "found", ""], *([g.text, g.found, "met" if g.met else "MISSED"] for g in judged)], 3))
    return "".join(parts)
