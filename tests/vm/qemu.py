# SPDX-License-Identifier: Apache-2.0
"""The command that starts QEMU for a machine with a number of CPUs.

python3 -m tests.vm.qemu                    fetch QEMU for guests with many CPUs, if this machine's is too old

With more than one CPU, QEMU before 10 mishandles self-modifying code: kprobes, tracepoints and static keys cause
"Oops: int3" or soft lockups.  If this machine's is older, that of Debian 13 is unpacked into build/vm/qemu with all its
dependencies, and started with their dynamic loader: nothing is installed.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

from .debian import BUILD, Apt, LabError, output
from .machine import MACHINES, Machine

SAFE = 10
"""First major version that is safe with many CPUs."""
SUITES = ("trixie", "trixie-security")
FOLDER = BUILD / "qemu"


def command(machine: Machine, cpus: int) -> list[str]:
    """Arguments to start QEMU for this many CPUs.

    Raises LabError if it was not fetched.
    """
    if cpus == 1 or _is_safe(machine.qemu):
        return [machine.qemu]
    root = _folder(machine)
    libraries = [*root.glob("usr/lib/*-linux-gnu")]
    loaders = [*root.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*")]
    if not (root / "packages").exists() or len(libraries) != 1 or len(loaders) != 1:
        raise LabError(f"no QEMU for {cpus} CPUs below {FOLDER}: run python3 -m tests.vm.qemu")
    program = [str(loaders[0]), "--library-path", str(libraries[0]), str(root / "usr/bin" / machine.qemu)]
    return [*program, "-L", str(root / "usr/share/qemu"), "-L", str(root / "usr/share/seabios")]


def fetch(machine: Machine, cpus: int) -> None:
    """Download and unpack what command() needs, unless it exists."""
    if cpus == 1 or _is_safe(machine.qemu) or (_folder(machine) / "packages").exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=".fetch-") as name:
        work = Path(name)
        apt = Apt(work / "apt", SUITES, arch=output("dpkg", "--print-architecture").strip())
        (work / "new").mkdir()
        listed = []
        for deb in apt.download_all([machine.package]):
            output("dpkg-deb", "-x", deb, work / "new")
            listed.append(output("dpkg-deb", "-W", deb).replace("\t", " "))
        (work / "new" / "packages").write_text("".join(listed))
        shutil.rmtree(_folder(machine), ignore_errors=True)
        (work / "new").rename(_folder(machine))


def _folder(machine: Machine) -> Path:
    return FOLDER / machine.package


@cache
def _is_safe(program: str) -> bool:
    """Whether this machine's QEMU is safe with many CPUs."""
    found = re.search(r"version (\d+)\.", output(program, "--version")) if shutil.which(program) else None
    return found is not None and int(found[1]) >= SAFE


def main() -> int:
    try:
        for machine in MACHINES.values():
            fetch(machine, 2)
            print(" ".join(command(machine, 2)))
    except LabError as error:
        print(f"qemu: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
