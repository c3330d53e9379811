# SPDX-License-Identifier: Apache-2.0
"""``make demo``: the daemon during one real OOM kill in a temporary memory cgroup; the record and its meaning."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tracer.records.summary import describe_kill

LIMIT_BYTES = 40 << 20
WAIT_S = 30.0
EATER = """
import os
open(os.environ["CGROUP"] + "/cgroup.procs", "w").write("0")
blocks = [b"x" * (1 << 20) for _ in range(200)]
"""


def main() -> int:
    root, version = memory_root()
    cgroup = root / f"oomtrace-demo-{os.getpid()}"
    cgroup.mkdir()
    try:
        limit = cgroup / ("memory.max" if version == 2 else "memory.limit_in_bytes")
        limit.write_text(str(LIMIT_BYTES))
        swap = cgroup / ("memory.swap.max" if version == 2 else "memory.swappiness")
        if swap.exists():
            swap.write_text("0")
        return trace_a_kill(cgroup)
    finally:
        cgroup.rmdir()


def memory_root() -> tuple[Path, int]:
    """Where the memory controller is mounted, and its cgroup version."""
    version_2 = None
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(where), 1
        if kind == "cgroup2" and "memory" in Path(where, "cgroup.controllers").read_text().split():
            version_2 = Path(where)
    if version_2 is None:
        sys.exit("demo: no memory controller is mounted; boot with cgroup_enable=memory, or mount cgroup2")
    (version_2 / "cgroup.subtree_control").write_text("+memory")
    return version_2, 2


def trace_a_kill(cgroup: Path) -> int:
    command = [sys.executable, "-m", "tracer", "run", "--no-keep"]
    print("$ oomtrace run --no-keep", flush=True)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as tracer:
        assert tracer.stdout is not None
        try:
            started = tracer.stdout.readline()
            if not started:
                return tracer.wait(WAIT_S)
            start = json.loads(started)
            print(f"attached (engine {start['engine']}, source {start['source']})")
            print(
                f"now a process in {cgroup} eats 200 MiB, where {LIMIT_BYTES >> 20} MiB are allowed ...\n", flush=True
            )
            signal.alarm(int(WAIT_S))  # timeout
            eater = subprocess.run(
                [sys.executable, "-c", EATER], env={**os.environ, "CGROUP": str(cgroup)}, timeout=WAIT_S, check=False
            )
            for line in tracer.stdout:
                record = json.loads(line)
                if record["type"] == "oom_kill" and record["victim"]["cgroup"] == f"/{cgroup.name}":
                    print(json.dumps(record, indent=2, ensure_ascii=False))
                    print(f"\n{describe_kill(record)}")
                    print(f"Its exit status was {-eater.returncode} (SIGKILL): what a shell or Docker shows as 137.")
                    return 0
        finally:
            tracer.send_signal(signal.SIGTERM)
            tracer.wait(WAIT_S)
            wait_until_empty(cgroup)
    print("no record of the kill came", file=sys.stderr)
    return 1


def wait_until_empty(cgroup: Path) -> None:
    """A cgroup can be removed only after the last of its processes is reaped."""
    end = time.monotonic() + WAIT_S
    while (cgroup / "cgroup.procs").read_text() and time.monotonic() < end:
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main())
