# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.fuzz``: runs targets, guided by coverage if atheris is installed.

    python -m tests.fuzz --seconds 600 [TARGET ...]    each in its own process; a table at the end
    python -m tests.fuzz --input FILE TARGET           run one input

Inputs with new coverage, and those that failed, are stored in build/fuzz/TARGET.
"""

import argparse
import hashlib
import importlib
import re
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parents[2] / "build" / "fuzz"
INPUT_BYTES_MAX = 1 << 15
INPUT_SECONDS_MAX = 20
RSS_MIB_MAX = 1024


class Outcome(NamedTuple):
    target: str
    executions: int
    seconds: int
    failed: bool


def fuzz(name: str, seconds: int) -> None:
    """Run one target; does not return if atheris is installed."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        _without_coverage(name, seconds)
        return
    with atheris.instrument_imports(include=["tracer"]):
        from .targets import TARGETS
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds()):
        (folder / f"seed-{number}").write_bytes(seed)

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        random = Random(seed)
        changed = target.mutate(data, random) if random.randrange(2) else atheris.Mutate(data, size_max)
        return bytes(changed[:size_max])

    arguments = [
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-rss_limit_mb={RSS_MIB_MAX}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-artifact_prefix={folder}/failed-",
        "-print_final_stats=1",
        str(folder),
    ]
    atheris.Setup([sys.argv[0], *arguments], target.run, custom_mutator=mutate)
    atheris.Fuzz()


def _without_coverage(name: str, seconds: int) -> None:
    from .targets import TARGETS

    target, random, count = TARGETS[name], Random(), 0
    seeds = list(target.seeds())
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = random.choice(seeds)
        for _ in range(random.choice((1, 1, 2, 5, 20))):
            data = target.mutate(data, random)[:INPUT_BYTES_MAX]
        try:
            target.run(data)
        except BaseException:
            path = FOLDER / name / f"failed-{hashlib.sha256(data).hexdigest()[:16]}"
            path.write_bytes(data)
            raise
        count += 1
    print(f"stat::number_of_executed_units: {count}")


def run(name: str, seconds: int) -> Outcome:
    """Run one target in a child process, because a fuzzer ends its process."""
    began = time.monotonic()
    log = FOLDER / f"{name}.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "tests.fuzz", "--alone", "--seconds", str(seconds), name]
        status = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    text = log.read_text(errors="replace")
    count = re.findall(r"number_of_executed_units: +(\d+)", text)
    if status:
        print(text[-4000:])
    return Outcome(name, int(count[-1]) if count else 0, int(time.monotonic() - began), status != 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=600, help="per target")
    parser.add_argument("--input", type=Path, help="an input file to run")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*")
    options = parser.parse_args()
    if options.alone:
        fuzz(options.targets[0], options.seconds)
        return 0
    from .targets import TARGETS

    for name in options.targets:
        if name not in TARGETS:
            parser.error(f"no target {name!r}; there are {', '.join(TARGETS)}")
    if options.input is not None:
        TARGETS[options.targets[0]].run(options.input.read_bytes())
        return 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for name in options.targets or TARGETS:
        outcomes.append(run(name, options.seconds))
        done = outcomes[-1]
        what = f"FAILED, see {FOLDER}/{name}.log" if done.failed else "ok"
        print(f"{name:12} {done.executions:>10} executions {done.seconds:>5} s  {what}", flush=True)
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.exit(code)
