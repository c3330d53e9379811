# SPDX-License-Identifier: Apache-2.0
"""Measurements in a VM.  On the host: boots it and gets the results.  Inside: ``python -m tests.bench.guest``."""

import sys
import tempfile
from pathlib import Path

from tests.harness.eater import binary
from tests.vm.debian import LabError
from tests.vm.run import PARTS, PROJECT
from tests.vm.vm import Guest, prepare

from . import session
from .results import Results

KERNEL = "6.1"
TIMEOUT_S = 2400.0
RESULT = "bench.json"
ENVIRONMENT = "OOMTRACE_VM=1 OOMTRACE_EAT=/host/eat PYTHONPATH=/opt/site:/host/oomtrace"


def run(quick: bool) -> Results:
    """Boot a VM whose kernel has kprobes, and measure there.

    Raises LabError where that does not work.
    """
    prepare([KERNEL])
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        out = Path(name)
        guest = Guest(
            kernel=KERNEL,
            memory_mib=1536,
            headers=True,  # for bpfcc's oomkill
            put=[
                *((PROJECT / part, f"oomtrace/{part}") for part in PARTS if (PROJECT / part).exists()),
                (binary(), "eat"),
            ],
            get=out,
            timeout=TIMEOUT_S,
        )
        words = f"cd /host/oomtrace && {ENVIRONMENT} exec python3 -m tests.bench.guest"
        status = guest.run(f"{words} --quick" if quick else words, sys.stderr.buffer, sys.stderr.buffer)
        if status:
            raise LabError(f"the guest's measurements ended with status {status}")
        return Results.load((out / RESULT).read_text())


def main() -> int:
    results = session.run("--quick" in sys.argv)
    Path("/out", RESULT).write_text(results.dump())
    return 0


if __name__ == "__main__":
    sys.exit(main())
