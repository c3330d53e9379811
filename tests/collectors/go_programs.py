# SPDX-License-Identifier: Apache-2.0
"""Builds programs that Debian packages as Go source only, once, into build/collectors/NAME.

    python -m tests.collectors.go_programs [NAME]...        build these, or all

Nothing is installed: Go and the libraries are unpacked from Debian's packages; the build needs no C compiler.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.harness.environment import ROOT
from tests.vm.debian import Apt, output

FOLDER = ROOT / "build" / "collectors"


class GoProgram(NamedTuple):
    name: str
    suite: str
    packages: tuple[str, ...]
    source: str
    """Directory of its main package, relative to Debian's Go sources."""
    main: Path | None = None
    """A main package of this project to put there."""

    def build(self) -> Path:
        """Path of the program; built if it is missing or its description has changed."""
        folder = FOLDER / self.name
        folder.mkdir(parents=True, exist_ok=True)
        program, stamp = folder / self.name, folder / "stamp"
        description = repr(self._replace(main=None)) + (self.main.read_text() if self.main else "")
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not program.exists() or not stamp.exists() or stamp.read_text() != description:
                self._build(folder, program)
                stamp.write_text(description)
        return program

    def _build(self, folder: Path, program: Path) -> None:
        root, apt = folder / "root", Apt(folder / "apt", (self.suite,))
        root.mkdir(exist_ok=True)
        for archive in apt.download_all(("golang-go", *self.packages)):
            output("dpkg-deb", "--extract", archive, root)
        (goroot,) = (root / "usr" / "lib").glob("go-*")
        sources = root / "usr" / "share" / "gocode"
        source = sources / "src" / self.source
        if self.main is not None:
            source.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.main, source / "main.go")
        settings = {"GOROOT": goroot, "GOPATH": sources, "GOCACHE": folder / "cache", "CGO_ENABLED": "0"}
        subprocess.run(
            [goroot / "bin" / "go", "build", "-ldflags", "-s -w", "-o", program, "."],
            cwd=source,
            env={**os.environ, "GO111MODULE": "off", "GOFLAGS": "", **{name: str(at) for name, at in settings.items()}},
            check=True,
        )
        for rest in ("root", "apt", "cache"):  # more than a gigabyte
            shutil.rmtree(folder / rest)


def _github(*names: str) -> tuple[str, ...]:
    return tuple(f"golang-github-{name}-dev" for name in names)


VICTORIA_LOGS = GoProgram(
    "victoria-logs",
    "trixie",
    _github(
        "victoriametrics-victoriametrics",
        *(f"victoriametrics-{name}" for name in ("easyproto", "fastcache", "metrics", "metricsql")),
        *(f"valyala-{name}" for name in ("bytebufferpool", "fastjson", "fastrand", "histogram", "quicktemplate")),
        "valyala-gozstd",
        "klauspost-compress",
        "cespare-xxhash",
    ),
    "github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-logs",
)
OTELCOL = GoProgram(
    "otelcol",
    "sid",
    ("golang-opentelemetry-collector-dev",),
    "oomtrace/otelcol",
    Path(__file__).with_name("otelcol.go"),
)

if __name__ == "__main__":
    for each in (VICTORIA_LOGS, OTELCOL):
        if each.name in sys.argv[1:] or len(sys.argv) == 1:
            begin_s = time.monotonic()
            print(each.build(), f"{time.monotonic() - begin_s:.0f} s")
