# SPDX-License-Identifier: Apache-2.0
"""What ``oomtrace why`` answers about real kernel logs, word for word: a table of what the paged engineer should read.

The table, tests/data/why_answers.json, has a row for each scenario and victim. Figures in it stand in braces, and are
read from the log here, by expressions of the test's own.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.harness import DATA
from tracer.commands.why import why

FOLDER = DATA / "kernel_logs"
TABLE: list[dict[str, Any]] = json.loads((DATA / "why_answers.json").read_text())


class Case(NamedTuple):
    log: str
    ask: str
    says: list[str]
    advises: list[str]
    cgroups: dict[str, str]
    """Replacements for names in the log."""
    victim: str


CASES = [
    Case(
        f"{kernel}-{row['scenario']}",
        row["ask"],
        row["says"],
        row["advises"],
        row.get("cgroups", {}),
        row.get("victim", row["ask"]),
    )
    for row in TABLE
    for kernel in row["kernels"]
]


def path_of(log: str) -> Path:
    """The complete log, or the excerpt with the lines that are read here."""
    whole = FOLDER / f"{log}.txt"
    return whole if whole.exists() else FOLDER / "trimmed" / f"{log}.txt"


def size(kb: float) -> str:
    return f"{kb / 1024:.1f} MiB" if kb >= 1024 else f"{kb:.1f} KiB"


def figures(log: str, name: str) -> dict[str, str]:
    """The log's lines about the last kill of that name: the victim's line, and the report above it."""
    kill = re.compile(
        rf"\[ *(?P<up>\d+\.\d+)\] [^\n]*: Killed process (?P<pid>\d+) \({re.escape(name)}\) total-vm:\d+kB, "
        r"anon-rss:(?P<anon>\d+)kB, file-rss:(?P<file>\d+)kB, shmem-rss:(?P<shmem>\d+)kB"
    )
    pid = [match["pid"] for match in kill.finditer(log)][-1]
    line = next(match for match in kill.finditer(log) if match["pid"] == pid)  # a group's first victim has two
    before = log[: line.start()]
    found = {
        "pid": pid,
        "up": f"{float(line['up']):.2f}",
        "rss": size(int(line["anon"]) + int(line["file"]) + int(line["shmem"])),
    }
    for counter, names in (("memory", ("usage", "limit")), ("swap", ("swap", "swaplimit"))):
        for match in re.finditer(rf"\] {counter}: usage (\d+)kB, limit (\d+)kB", before):
            found |= {names[0]: size(int(match[1])), names[1]: size(int(match[2]))}
            if counter == "memory":
                found["percent"] = str(
                    100 * (int(line["anon"]) + int(line["file"]) + int(line["shmem"])) // int(match[2])
                )
                found["mib"] = str(int(match[2]) // 1024)
                found["more"] = str(-(-int(match[2]) * 5 // 4 // 1024))
                found["enough"] = str(-(-int(match[1]) * 5 // 4 // 1024))
                found["used"] = str(int(match[1]) // 1024)
    memory = dict(re.findall(r"\] (Total swap|\d+ pages (?:RAM|reserved))(?: = (\d+)kB)?$", before, re.MULTILINE))
    if memory:
        pages = {name.partition(" pages ")[2]: int(name.partition(" ")[0]) for name in memory if " pages " in name}
        found["host"] = size((pages["RAM"] - pages["reserved"]) * 4 + int(memory["Total swap"]))
    for match in re.finditer(r"^(?:\[ *\d+\.\d+\]| *) (anon|file|kernel|shmem|slab) (\d+)$", before, re.MULTILINE):
        found[f"in_{match[1]}"] = size(int(match[2]) / 1024)
    found["kernel"] = f", {found['in_kernel']} kernel" if "in_kernel" in found else ""  # since Linux 5.18
    rows = [_row(match) for match in _ROW.finditer(before[before.rfind("] Tasks state") :])]
    for row in rows:
        if row.pid == pid:
            found["swapped"] = size(row.swap_kb)
        found |= {f"pid_{row.name}": row.pid, f"size_{row.name}": size(row.rss_kb)}
    for match in re.finditer(r",oom_memcg=([^,]*),task_memcg=", before):
        found["cgroup"] = match[1]
    others = sorted((row for row in rows if row.pid != pid and row.rss_kb), key=lambda row: -row.rss_kb)[:3]
    for match in re.finditer(r"PID: (\d+) Comm: ", before):
        found["trigger"] = match[1]
    found["others"] = ", ".join(f"{row.name} (pid {row.pid}) {size(row.rss_kb)}" for row in others)
    return found


class Row(NamedTuple):
    pid: str
    name: str
    rss_kb: int
    swap_kb: int


_ROW = re.compile(
    r"^\[ *\d+\.\d+\] \[ *(?P<pid>\d+)\](?: +\d+){3} +(?P<rss>\d+) .* (?P<swap>\d+) +-?\d+ (?P<name>[^ ]+|hog user)$",
    re.MULTILINE,
)


def _row(match: re.Match[str]) -> Row:
    return Row(match["pid"], match["name"], int(match["rss"]) * 4, int(match["swap"]) * 4)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.log}-{case.ask[:24]}")
def test_answer(case: Case, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The complete answer, without the evidence."""
    (tmp_path / "none.json").touch()
    text = path_of(case.log).read_bytes()
    for old, new in case.cgroups.items():
        assert old.encode() in text
        text = text.replace(old.encode(), new.encode())
    path = tmp_path / f"{case.log}.txt"
    path.write_bytes(text)
    log = text.decode(errors="backslashreplace")
    why(case.ask, None, [str(tmp_path / "none.json")], [str(path)], False, [])  # type: ignore[arg-type]
    said = capsys.readouterr().out.partition("\n\nEvidence:\n")[0]
    expected = "\n".join([*case.says, *(f"\n{advice}" for advice in case.advises)])
    known = figures(log, case.victim) if "{" in expected else {}
    assert re.sub(r"\{([\w -]+)\}", lambda match: known[match[1]], expected) == said
