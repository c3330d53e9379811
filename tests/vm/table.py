# SPDX-License-Identifier: Apache-2.0
"""Writes the table of kernels and scenarios in docs/kernels.md, from the results in build/vm/results.

python3 -m tests.vm.table                   rewrite the part between the two markers
python3 -m tests.vm.table --check           exit status 1 if that would change anything
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from .run import PROJECT, RESULTS

PAGE = PROJECT / "docs" / "kernels.md"
BEGIN, END = "<!-- vm-table -->", "<!-- /vm-table -->"
EMPTY_PAGE = f"# Kernels\n\n{BEGIN}\n{END}\n"
NOT_APPLICABLE = "–"


@dataclass
class Scenario:
    """A test on one VM, with all its parameters."""

    failed: bool = False
    passed: bool = False
    reasons: set[str] = field(default_factory=set)  # of skipped parameters

    @property
    def cell(self) -> str:
        if self.failed:
            return "no"
        if self.passed:
            return "yes"
        return NOT_APPLICABLE if self.reasons else ""


@dataclass
class Column:
    """The results of one VM."""

    heading: tuple[str, ...]
    order: tuple[object, ...]
    scenarios: dict[str, Scenario]


def read(path: Path) -> Column:
    """A column from LABEL-cgroupN-ENGINE[-nobtf][-Ncpus].xml."""
    match = re.fullmatch(r"(.+)-cgroup([12])-(core|bcc)(-nobtf)?(?:-(\d+)cpus)?", path.stem)
    if not match:
        raise ValueError(f"{path.name} is not named like a result of tests.vm.run")
    label, cgroup, engine, hidden, cpus = match.groups()
    tree = ElementTree.parse(path)  # noqa: S314 - our own
    properties = {element.get("name"): element.get("value") for element in tree.iter("property")}
    kernel = properties.get("kernel") or label
    scenarios: dict[str, Scenario] = {}
    for case in tree.iter("testcase"):
        scenario = scenarios.setdefault(_readable(case), Scenario())
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            scenario.failed = True
        elif skipped is None:
            scenario.passed = True
        else:
            scenario.reasons.add(skipped.get("message", "").removeprefix("not applicable: "))
    heading = kernel, f"cgroup v{cgroup}", engine + (", no BTF" if hidden else "") + (f", {cpus} CPUs" if cpus else "")
    version = tuple(int(number) for number in re.findall(r"\d+", kernel)[:4])
    return Column(heading, (version, -int(cgroup), engine != "core", bool(hidden), int(cpus or 1), label), scenarios)


def _readable(case: ElementTree.Element) -> str:
    """tests.kernel.test_memcg, test_parent_limit[1] -> "memcg: parent limit"."""
    module = case.get("classname", "").rpartition(".")[2].removeprefix("test_")
    name = case.get("name", "").partition("[")[0].removeprefix("test_")
    return (name if name == module else f"{module}: {name}").replace("_", " ")


def render(columns: list[Column]) -> str:
    """The table, and the reasons why scenarios do not apply."""
    columns = sorted(columns, key=lambda column: column.order)
    names = list(dict.fromkeys(name for column in columns for name in column.scenarios))
    lines = [
        "| scenario | " + " | ".join("<br>".join(column.heading) for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    missing = Scenario()
    reasons: dict[str, dict[str, None]] = {}
    for name in names:
        row = [column.scenarios.get(name, missing) for column in columns]
        lines.append(f"| {name} | " + " | ".join(scenario.cell for scenario in row) + " |")
        for scenario in row:
            for reason in sorted(scenario.reasons) if scenario.cell == NOT_APPLICABLE else ():
                reasons.setdefault(reason, {})[name] = None
    if reasons:
        lines += ["", f"Not applicable ({NOT_APPLICABLE}):", ""]
        lines += [f"- {', '.join(scenarios)}: {reason}" for reason, scenarios in reasons.items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.vm.table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    results = sorted(RESULTS.glob("*.xml"))
    if not results:
        print(f"table: no results in {RESULTS}: run python3 -m tests.vm.run --all", file=sys.stderr)
        return 2
    before = PAGE.read_text() if PAGE.exists() else EMPTY_PAGE
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        print(f"table: {PAGE} lacks the markers {BEGIN} and {END}", file=sys.stderr)
        return 2
    after = f"{head}{BEGIN}\n\n{render([read(path) for path in results])}\n\n{END}{tail}"
    if PAGE.exists() and before == after:
        return 0
    if check:
        print(f"table: {PAGE.relative_to(PROJECT)} does not show the results in {RESULTS.relative_to(PROJECT)}")
        return 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
