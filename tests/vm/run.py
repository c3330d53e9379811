# SPDX-License-Identifier: Apache-2.0
"""Runs tests/kernel on other kernels; the results are in build/vm/results, one file per VM.

python3 -m tests.vm.run --kernel 6.1 --cgroup 2 --engine core [--no-btf] [--cpus 32] [--depth short] [pytest arguments]
python3 -m tests.vm.run --few               oldest and newest kernel, bcc without BTF, arm64, many CPUs, and systemd
python3 -m tests.vm.run --few --prepare     only fetches and makes what they need
python3 -m tests.vm.run --all               every VM of MATRIX and those of tests.vm.systemd, two at a time
python3 -m tests.vm.run --list              the kernels

With pytest arguments, which mostly select tests, the results go to build/vm/results/partial instead.
The exit status of a single VM is that of pytest, or 124 and 125 as in tests.vm.vm.
Kernels and the guests' Debian come from the mirror that apt uses here; where apt knows no Debian mirror (Ubuntu),
set OOMTRACE_DEBIAN_MIRROR to the URI of one, whose security archive has the same URI with -security added.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args
from xml.etree import ElementTree

from tests.harness.verifier import clang

from . import kernels, root
from .debian import BUILD, LabError, output
from .machine import MACHINES
from .vm import DIED, TIMEOUT, Guest, exit_on_signals, mebibytes, prepare

PROJECT = BUILD.parents[1]
RESULTS = BUILD / "results"
# Directories of the project that the tests need.
PARTS = ("tracer", "bpf", "tests", "pyproject.toml")
Depth = Literal["whole", "short", "smoke"]
"""short: without slow tests that depend on the kernel version only; smoke: attaching, and kills with exact figures."""
LONG = ("test_storm.py", "test_daemon.py", "test_metadata.py", "test_top.py", "test_host.py")
"""Tests with three quarters of the run time that hardly depend on processor, engine or cgroup version."""
COMPILES_ANEW = (
    "test_backfill.py",
    "test_brief.py::test_essentials",
    "test_brief.py::test_many_cgroups",
    "test_brief.py::test_no_room_at_all",
    "test_group_kill.py::test_killed_again",
    "test_group_kill.py::test_tracepoint_with_a_pid",
    "test_maps.py",
    "test_marked.py",
    "test_why.py",
)
"""Tests that start their own daemon; one test of test_brief.py is left, which needs the exits, too."""
MANY_CPUS = 32
"""Each CPU that inserts into an LRU map may reserve 128 entries: this many CPUs exhaust a map of 4096."""
CPU_MIB = 16
"""Additional memory per CPU of a guest."""
AT_ONCE = 2
TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Run:
    """A run of the tests in one VM."""

    kernel: str
    cgroup: int = 2
    engine: str = "core"
    btf: bool = True
    cpus: int = 1
    depth: Depth = "whole"
    few: Depth | None = None
    """Depth in ``make test``; None: only in ``make test-vm-all``, because it lies between two other runs."""
    results: Path = RESULTS

    @property
    def name(self) -> str:
        name = f"{self.kernel}-cgroup{self.cgroup}-{self.engine}{'' if self.btf else '-nobtf'}"
        return name if self.cpus == 1 else f"{name}-{self.cpus}cpus"

    @property
    def junit(self) -> Path:
        return self.results / f"{self.name}.xml"

    @property
    def log(self) -> Path:
        return self.results / f"{self.name}.log"

    def words(self, options: Sequence[str]) -> list[str]:
        """Its command."""
        words = ["tests.vm.run", "--kernel", self.kernel, "--cgroup", str(self.cgroup), "--engine", self.engine]
        words += [] if self.btf else ["--no-btf"]
        words += ["--cpus", str(self.cpus), "--depth", self.depth]
        return [sys.executable, "-m", *words, *options]

    def count(self) -> dict[str, int]:
        """Number of tests by outcome; a VM without results counts as one failed test."""
        count = {"passed": 0, "failed": 0, "skipped": 0}
        if not self.junit.exists():
            return {**count, "failed": 1}
        # Not the suite's totals: they count a test twice that fails itself and in its teardown.
        for case in ElementTree.parse(self.junit).iter("testcase"):  # noqa: S314 - our own
            tags = {child.tag for child in case}
            count["failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"] += 1
        return count


@dataclass(frozen=True)
class SystemdRun(Run):
    """A suite of tests.vm.systemd, with its own options and results."""

    kernel: str = "6.12"
    suite: str = "runtimes"

    @property
    def name(self) -> str:
        return f"systemd-{self.suite}"

    @property
    def junit(self) -> Path:
        return self.results / self.name / "junit.xml"

    def words(self, options: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "tests.vm.systemd", "--suite", self.suite, "--depth", self.depth]


SYSTEMD: list[Run] = [SystemdRun(suite="runtimes"), SystemdRun(suite="scenarios", few="whole")]
# The longest first, so that no run is left alone at the end.
MATRIX = [
    # Without BTF bcc needs the headers of the kernel, and compiles for longer than all else here takes.
    Run("6.1", engine="bcc", btf=False, depth="short", few="smoke"),
    Run("5.10", engine="bcc", btf=False, depth="short"),
    Run("6.1", cpus=MANY_CPUS, few="whole"),
    Run("7.x", cpus=MANY_CPUS, few="whole"),
    Run("7.x", few="smoke"),
    Run("7.x", engine="bcc", depth="short"),
    Run("6.12-arm64", depth="short", few="smoke"),
    Run("5.10", few="smoke"),
    Run("6.12", depth="short"),
    Run("6.1", depth="short"),
    Run("5.10-old", depth="short"),
    # Debian's kernels from 6.12 on have no memory controller for cgroup v1.
    Run("6.1", cgroup=1, depth="short"),
    Run("5.10", cgroup=1, depth="short"),
]


def run_one(run: Run, arguments: Sequence[str], timeout: float, memory_mib: int) -> int:
    """Run the tests in a VM; the exit status of pytest, or of the VM."""
    run.results.mkdir(parents=True, exist_ok=True)
    run.junit.unlink(missing_ok=True)
    prepare([run.kernel], cpus=run.cpus)
    with tempfile.TemporaryDirectory(prefix="vm-run-") as name:
        work = Path(name)
        arch = kernels.ALL[run.kernel].arch
        output(MACHINES[arch].cc, "-O2", "-static", "-pthread", "-o", work / "eat", PROJECT / "tests/harness/eat.c")
        guest = Guest(
            kernel=run.kernel,
            system=root.SMALLS[arch],
            memory_mib=memory_mib + (CPU_MIB * run.cpus if run.cpus > 1 else 0),
            cgroup=run.cgroup,
            headers=run.engine == "bcc" and not run.btf,
            btf=run.btf,
            put=[
                *((PROJECT / part, f"oomtrace/{part}") for part in PARTS),
                (work / "eat", "eat"),
            ],
            get=work / "out",
            timeout=timeout,
            cpus=run.cpus,
        )
        status = guest.run(command(run, arguments), sys.stdout.buffer, sys.stderr.buffer)
        if (work / "out/junit.xml").exists():
            shutil.copyfile(work / "out/junit.xml", run.junit)
            shutil.copyfile(work / "out/dmesg.txt", run.log.with_suffix(".dmesg"))
    return status


def command(run: Run, arguments: Sequence[str]) -> str:
    """Command for the guest's shell."""
    environment = {
        "OOMTRACE_VM": "1",
        "OOMTRACE_REQUIRE": "all",
        "OOMTRACE_PATIENCE": os.environ.get("OOMTRACE_PATIENCE", "1"),
        "OOMTRACE_ENGINE": run.engine,
        "OOMTRACE_CLANG": clang(),
        "OOMTRACE_EAT": "/host/eat",
        "PYTHONPATH": "/opt/site:/host/oomtrace",
        # Importing hypothesis takes seconds here, and these tests do not need it.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "COLUMNS": "120",
    }
    pytest = ["python3", "-m", "pytest", "-p", "no:cacheprovider", "-q", "--color=no", "--tb=short", "--durations=5"]
    pytest += ["--junitxml=/out/junit.xml", *arguments]
    if not run.btf:  # each start compiles for a minute, and these tests start often
        pytest += _without("test_daemon.py", "test_metadata.py", "test_reload.py", "test_reading.py", "test_limits.py")
        pytest += _without("test_shares.py", "test_unprivileged.py")
        pytest += _without(*COMPILES_ANEW) if run.depth == "smoke" else []
    if any(argument.startswith("tests/") for argument in arguments):
        pass
    elif run.cpus > 1:
        pytest.append("tests/kernel/test_many_cpus.py")
    else:
        pytest.append("tests/kernel")
        if run.depth == "smoke":
            pytest += _without(*LONG)
        if run.depth != "whole":
            pytest += _without("test_pins.py", "test_outputs.py", "test_reload.py", "test_shares.py")
            # Each of these starts a daemon, too; one test shows whether the kernel's structures are read correctly.
            pytest += [] if "-k" in arguments else ["-k", "not test_sigkill.py or test_shell"]
    assignments = [f"{name}={value}" for name, value in environment.items()]
    return f"cd /host/oomtrace && exec {shlex.join(['env', *assignments, *pytest])}"


def _without(*files: str) -> list[str]:
    return [word for file in files for word in ("--deselect", f"tests/kernel/{file}")]


def prepare_all(matrix: Sequence[Run]) -> None:
    """Fetch and make what the runs need."""
    prepare(sorted({run.kernel for run in matrix}))
    for run in matrix:
        prepare([run.kernel], cpus=run.cpus)
        if isinstance(run, SystemdRun):
            prepare([run.kernel], root.SYSTEMD)


def run_all(matrix: Sequence[Run], options: Sequence[str], arguments: Sequence[str], results: Path) -> int:
    """Run them; 1 if a test failed or a VM did not finish."""
    prepare_all(matrix)
    results.mkdir(parents=True, exist_ok=True)
    waiting = [replace(run, results=results) for run in matrix]
    running: dict[subprocess.Popen[bytes], tuple[Run, float]] = {}
    lines: list[str] = []
    tried: set[str] = set()
    total = {"passed": 0, "failed": 0, "skipped": 0}
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                run = waiting.pop(0)
                with run.log.open("wb") as log:
                    words = run.words([*options, *arguments])
                    process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=PROJECT)
                running[process] = run, time.monotonic()
            time.sleep(0.2)
            for process in [process for process in running if process.poll() is not None]:
                run, began = running.pop(process)
                seconds = time.monotonic() - began
                if process.returncode and run.name not in tried:
                    # Emulated machines on a busy host fail at times; failed tests are run a second time.
                    tried.add(run.name)
                    waiting.append(run)
                    lines.append(f"{run.name:<24}failed at first, tried once more: {_failures(run)}")
                    print(f"===== {run.name}\n{run.log.read_text(errors='replace')}\n{lines[-1]}", flush=True)
                    continue
                lines.append(_report(run, process.returncode, seconds, total))
    finally:
        for process in running:
            process.terminate()  # it stops its QEMU, and exits
        for process in running:
            process.wait()
    print("\n" + "\n".join(lines))
    print(f"{total['passed']} passed, {total['failed']} failed")
    return 1 if total["failed"] else 0


def _failures(run: Run) -> str:
    """Names of the failed tests, or a note that the VM did not finish."""
    lines = run.log.read_text(errors="replace").splitlines()
    found = [line.split()[1] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return ", ".join(found[:5]) or "no end"


def _report(run: Run, status: int, seconds: float, total: dict[str, int]) -> str:
    """Print a VM's log and add its tests to the total; its summary line."""
    print(f"===== {run.name}\n{run.log.read_text(errors='replace')}", flush=True)
    count = run.count()
    if status and not count["failed"]:
        count["failed"] = 1
    for key, number in count.items():
        total[key] += number
    end = {TIMEOUT: ", time was up", DIED: ", the guest died"}.get(status, "")
    outcome = ", ".join(f"{number} {key}" for key, number in count.items())
    line = f"{run.name:<24}{outcome}, status {status}{end}, {seconds:.0f} s"
    print(line, flush=True)
    return line


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.vm.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--prepare", action="store_true", help="with --all or --few: run nothing")
    parser.add_argument("--kernel", choices=kernels.ALL)
    parser.add_argument("--cgroup", type=int, choices=(1, 2), default=2)
    parser.add_argument("--engine", choices=("core", "bcc"), default="core")
    parser.add_argument("--no-btf", action="store_true")
    parser.add_argument("--cpus", type=int, default=1, help="several: storms on all of them, see docs/testing.md")
    parser.add_argument("--depth", choices=get_args(Depth), default="whole", help="without the tests that take longest")
    parser.add_argument("--memory", type=mebibytes, default=Guest.memory_mib, metavar="MIB")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS")
    options, arguments = parser.parse_known_args()
    results = RESULTS / "partial" if arguments else RESULTS
    exit_on_signals()
    try:
        if options.list:
            print("\n".join(f"{label:<10}{kernel.fetched()}" for label, kernel in kernels.ALL.items()))
            return 0
        if options.all or options.few:
            # The tests of these runs are fixed.
            matrix = [*([] if arguments else SYSTEMD), *MATRIX]
            if options.few:
                matrix = [replace(run, depth=run.few) for run in matrix if run.few is not None]
            if options.prepare:
                prepare_all(matrix)
                return 0
            return run_all(matrix, [f"--timeout={options.timeout}", f"--memory={options.memory}"], arguments, results)
        if not options.kernel:
            parser.error("one of --all, --few, --list and --kernel is needed")
        machine = options.kernel, options.cgroup, options.engine, not options.no_btf, options.cpus
        run = Run(*machine, options.depth, results=results)
        return run_one(run, arguments, options.timeout, options.memory)
    except LabError as error:
        print(f"run: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
