# SPDX-License-Identifier: Apache-2.0
"""The wheel: built by ``make wheel`` in a fresh clone, installed by pipx outside of the checkout, and run."""

import json
import os
import shutil
import signal
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests import manpages
from tests.harness.environment import IN_VM, ROOT, TIMEOUT_S, TIMEOUT_SCALE, not_applicable, wait_until
from tests.harness.schema import check_line
from tests.runtimes.commands import ENVIRONMENT
from tracer import __version__
from tracer.records.json_schema import json_schema

EM_BPF = 247
"""include/uapi/linux/elf-em.h"""
ARCHITECTURES = {"x86_64", "arm64"}
INSTALL_S = 300 * TIMEOUT_SCALE


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in a fresh clone."""
    if IN_VM:
        not_applicable("a guest does not reach PyPI")
    clone = tmp_path_factory.mktemp("clone") / "oomtrace"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv", "build", "dist", "objects", ".*_cache"))
    made = os.environ.keys() - {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    environment = {name: os.environ[name] for name in made}
    subprocess.run(["make", "wheel"], cwd=clone, env=environment, check=True, timeout=INSTALL_S)
    return clone / f"dist/oomtrace-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The installed command, independent of the checkout."""
    home = tmp_path_factory.mktemp("pipx")
    pipx = {**ENVIRONMENT, "PIPX_HOME": f"{home}/pipx", "PIPX_BIN_DIR": f"{home}/bin", "HOME": str(home)}
    subprocess.run(["pipx", "install", wheel], env=pipx, cwd=home, check=True, timeout=INSTALL_S)
    return ["env", "--unset=PYTHONPATH", "--chdir=/", f"{home}/bin/oomtrace"]


def test_objects(wheel: Path) -> None:
    """The wheel has the BPF programs of every architecture, and the sources for bcc."""
    with zipfile.ZipFile(wheel) as archive:
        objects = {name: archive.read(name) for name in archive.namelist() if name.endswith(".bpf.o")}
        for source in (ROOT / "bpf").rglob("*"):
            if source.is_file():
                assert archive.read(f"tracer/bpf/{source.relative_to(ROOT / 'bpf')}") == source.read_bytes()
    assert set(objects) == {f"tracer/objects/oomtrace.{name}.bpf.o" for name in ARCHITECTURES}
    for content in objects.values():
        assert content[:4] == b"\x7fELF"
        assert int.from_bytes(content[18:20], "little") == EM_BPF
    assert len(set(objects.values())) == len(ARCHITECTURES), "the registers of a kprobe differ by architecture"


def test_manual_and_completion(wheel: Path) -> None:
    """Manual pages and completions are below the prefix, where man and the shells look for them."""
    with zipfile.ZipFile(wheel) as archive:
        shared = {name.partition(".data/data/")[2]: archive.read(name) for name in archive.namelist()}
    for page in manpages.PAGES:
        assert shared[f"share/man/{page.parent.name}/{page.name}"] == page.read_bytes()
    for path in (
        "share/bash-completion/completions/oomtrace",
        "share/zsh/site-functions/_oomtrace",
        "share/fish/vendor_completions.d/oomtrace.fish",
    ):
        assert b"_OOMTRACE_COMPLETE=" in shared[path]


def test_command(command: list[str]) -> None:
    """--version and the schema are those of this version."""
    assert subprocess.run([*command, "--version"], capture_output=True, text=True).stdout == f"oomtrace {__version__}\n"
    done = subprocess.run([*command, "schema"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json_schema()


def test_report(command: list[str], tmp_path: Path) -> None:
    """The report works: its files are in the wheel."""
    log = ROOT / "tests" / "data" / "kernel_logs" / "7.2-group.txt"
    page = tmp_path / "report.html"
    subprocess.run([*command, "report", log, "-o", page], check=True)
    assert "hog-bystander1" in page.read_text()
    assert "</html>" in page.read_text()


@pytest.mark.parametrize("engine", ["core", "bcc"])
def test_run(command: list[str], engine: str, tmp_path: Path) -> None:
    """It traces with both engines, until it is stopped."""
    assert os.geteuid() == 0, "tracing needs root"
    output = tmp_path / "records.json"
    daemon = subprocess.Popen([*command, "run", "--no-keep", "--engine", engine, "--output", f"file:{output}"])
    try:
        wait_until("the start record", lambda: output.exists() and output.read_bytes().endswith(b"\n"), 6 * TIMEOUT_S)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(TIMEOUT_S) == 0
    finally:
        daemon.kill()
        daemon.wait()
    lines = output.read_bytes().splitlines()
    for line in lines:
        check_line(line)
    records = [json.loads(line) for line in lines]
    assert [records[0]["type"], records[-1]["type"]] == ["start", "stop"]
    assert (records[0]["version"], records[0]["engine"]) == (__version__, engine)
