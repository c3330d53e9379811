# SPDX-License-Identifier: Apache-2.0
"""Runs tests in a Debian 13 with systemd; the results are in build/vm/results/systemd-SUITE.

python3 -m tests.vm.systemd [--suite runtimes | scenarios] [--engine core | bcc] [--depth short] [pytest arguments]

dist/ must have the Debian package (make deb).  pytest runs as a service, on cgroup v2 and with real container runtimes:
see tests.vm.root.  Results are junit.xml, dmesg.txt, journal.txt and what the tests wrote (tmp); with pytest arguments
they go to build/vm/results/partial instead.
The exit status is that of pytest, or 124 and 125 as in tests.vm.vm.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tracer import __version__

from .debian import LabError, output
from .machine import MACHINES
from .root import SYSTEMD
from .run import PARTS, PROJECT, RESULTS
from .vm import Guest, exit_on_signals, mebibytes, prepare

KERNEL = "6.12"
SUITES = {"runtimes": ("tests/packaging", "tests/runtimes"), "scenarios": ("tests/scenarios",)}
LONG = ("test_late.py", "test_removed.py", "test_why.py")
"""Slow tests of tests/runtimes that do not depend on systemd."""
DEB = PROJECT / f"dist/oomtrace_{__version__}_all.deb"
TIMEOUT_S = 2400.0
MEMORY_MIB = 2048
# Time for a guest to boot, and to send its results at its timeout.
BOOT_S = 90.0
END_S = 30.0


def run(suite: str, engine: str, depth: str, arguments: Sequence[str], timeout: float, memory_mib: int) -> int:
    """Run the tests in a VM; the exit status of pytest, or of the VM."""
    results = (RESULTS / "partial" if arguments else RESULTS) / f"systemd-{suite}"
    shutil.rmtree(results, ignore_errors=True)
    if not DEB.exists():
        raise LabError(f"{DEB} is missing: make deb")
    prepare([KERNEL], SYSTEMD)
    with tempfile.TemporaryDirectory(prefix="vm-systemd-") as name:
        eat = Path(name) / "eat"
        output(MACHINES[SYSTEMD.arch].cc, "-O2", "-static", "-pthread", "-o", eat, PROJECT / "tests/harness/eat.c")
        guest = Guest(
            kernel=KERNEL,
            system=SYSTEMD,
            memory_mib=memory_mib,
            put=[
                *((PROJECT / part, f"oomtrace/{part}") for part in (*PARTS, "deploy", "docs", "vagrant")),
                (eat, "eat"),
                (DEB, f"oomtrace/dist/{DEB.name}"),
            ],
            get=results,
            timeout=timeout,
        )
        left_out = [f"--deselect=tests/runtimes/{name}" for name in LONG] if depth == "short" else []
        pytest = command(SUITES[suite], engine, [*arguments, *left_out], timeout - BOOT_S)
        return guest.run(pytest, sys.stdout.buffer, sys.stderr.buffer)


def command(tests: Sequence[str], engine: str, arguments: Sequence[str], seconds: float) -> str:
    """Command for the guest's shell: pytest, interrupted at its timeout, so that there are results."""
    environment = {
        "OOMTRACE_VM": "1",
        "OOMTRACE_REQUIRE": "all",
        "OOMTRACE_PATIENCE": os.environ.get("OOMTRACE_PATIENCE", "1"),
        "OOMTRACE_ENGINE": engine,
        "OOMTRACE_EAT": "/host/eat",
        "OOMTRACE_DEB": f"/host/oomtrace/dist/{DEB.name}",
        "PYTHONPATH": "/host/oomtrace:/opt/site",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "COLUMNS": "120",
    }
    words = ["timeout", "--signal=INT", f"--kill-after={END_S:g}", f"{seconds:g}"]
    words += ["env", *(f"{name}={value}" for name, value in environment.items())]
    words += ["python3", "-m", "pytest", "-p", "no:cacheprovider", "-q", "--color=no", "--tb=short", "--durations=10"]
    words += ["--junitxml=/out/junit.xml", "--basetemp=/out/tmp", *arguments]
    if not any(argument.startswith("tests/") for argument in arguments):
        words += tests
    return f"cd /host/oomtrace && exec {shlex.join(words)}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.vm.systemd",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--suite", choices=SUITES, default="runtimes")
    parser.add_argument("--engine", choices=("core", "bcc"), default="core")
    parser.add_argument("--depth", choices=("whole", "short"), default="whole", help="short: without the slowest tests")
    parser.add_argument("--memory", type=mebibytes, default=MEMORY_MIB, metavar="MIB")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS")
    options, arguments = parser.parse_known_args()
    exit_on_signals()
    began = time.monotonic()
    try:
        status = run(options.suite, options.engine, options.depth, arguments, options.timeout, options.memory)
    except LabError as error:
        print(f"systemd: {error}", file=sys.stderr)
        return 2
    print(f"systemd {options.suite}: status {status}, {time.monotonic() - began:.0f} s", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
