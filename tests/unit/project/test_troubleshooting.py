# SPDX-License-Identifier: Apache-2.0
"""The messages in docs/troubleshooting.md are those of oomtrace."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from tests.harness import ROOT
from tracer.accounting import backfill
from tracer.base.errors import TracerError
from tracer.capture import capture, engine_bcc, kernel_features, pins
from tracer.commands.doctor import doctor
from tracer.commands.why import why
from tracer.delivery.sinks import connect
from tracer.linux import bpffs, privileges
from tracer.logs import kmsg
from tracer.why import sources

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


def shown() -> list[str]:
    """The messages of the page, in order."""
    return [block.strip("\n") for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)]


def message(act: Callable[[], object]) -> str:
    with pytest.raises((TracerError, OSError)) as raised:
        act()
    return str(raised.value)


def unknown_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Without records, and with a kernel log as in docs/why.md."""
    recorded = sources.RECORDS
    monkeypatch.setattr(sources, "_oldest_line", lambda: "2026-11-26T13:39:17.000000000Z")
    monkeypatch.setattr(sources, "RECORDS", str(tmp_path / "*.json*"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no journalctl
    said = message(lambda: why("shop-cart-9", None, [], [], False, []))  # type: ignore[arg-type]
    return said.replace(str(tmp_path / "*.json*"), recorded)


def without_btf(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    """doctor's messages about the engines."""
    monkeypatch.setattr(kernel_features, "BTF", "/nowhere/vmlinux")
    monkeypatch.setattr(engine_bcc, "SYSTEM_PYTHON", "/nowhere/python3")
    with pytest.raises(typer.Exit) as left:
        doctor(as_json=False)
    assert left.value.exit_code == 3
    lines = capfd.readouterr().out.splitlines()
    begin = next(number for number, line in enumerate(lines) if "engine core" in line)
    said = "\n".join(lines[begin : begin + 4])
    return said.replace("/nowhere/vmlinux", "/sys/kernel/btf/vmlinux").replace("/nowhere/", "/usr/bin/")


def without_bcc(monkeypatch: pytest.MonkeyPatch) -> str:
    """Neither the system's Python nor that of oomtrace has bcc."""
    monkeypatch.setattr(engine_bcc, "SYSTEM_PYTHON", "/nowhere/python3")
    monkeypatch.setattr(engine_bcc, "OWN_PYTHON", "/nowhere/python3")
    return message(lambda: engine_bcc._compile_programs({}, []))


def locked_down(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> str:
    """doctor's message for this state of the kernel."""
    (tmp_path / "lockdown").write_text("none integrity [confidentiality]\n")
    monkeypatch.setattr(kernel_features, "LOCKDOWN", str(tmp_path / "lockdown"))
    with pytest.raises(typer.Exit):
        doctor(as_json=False)
    lines = capfd.readouterr().out.splitlines()
    begin = next(number for number, line in enumerate(lines) if "lockdown:" in line)
    return "\n".join(lines[begin : begin + 2])


def without_capabilities(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    """doctor's messages about them."""
    monkeypatch.setattr(privileges, "missing_capabilities", lambda: ["CAP_BPF", "CAP_PERFMON"])
    with pytest.raises(typer.Exit):
        doctor(as_json=False)
    return "\n".join(capfd.readouterr().out.splitlines()[:2])


def without_kernel_log(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    """A missing device, as in a container."""
    monkeypatch.setattr(backfill, "Kmsg", lambda: kmsg.Kmsg("/nowhere/kmsg"))
    assert backfill.open_backfill("") is None
    return capfd.readouterr().err.strip("\n").replace("/nowhere/", "/dev/")


def second_oomtrace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A locked directory; in a bpffs it would need root."""
    monkeypatch.setattr(bpffs, "filesystem_magic", lambda _path: bpffs.MAGIC)
    first = pins.Pins(str(tmp_path))
    said = message(lambda: pins.Pins(str(tmp_path)))
    del first
    return said.replace(str(tmp_path), "/sys/fs/bpf/oomtrace")


def test_messages(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The page has exactly these messages."""
    produced = [
        unknown_name(monkeypatch, tmp_path),
        str(connect.explain_error(OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))).strerror),
        without_btf(monkeypatch, capfd),
        message(lambda: capture.choose_engine("core", False)),
        without_bcc(monkeypatch),
        locked_down(monkeypatch, capfd, tmp_path),
        without_capabilities(monkeypatch, capfd),
        without_kernel_log(monkeypatch, capfd),
        second_oomtrace(monkeypatch, tmp_path),
    ]
    assert shown() == produced


def test_answer() -> None:
    """The answer of ``oomtrace why`` starts as in docs/why.md, which another test checks."""
    (example,) = re.findall(r"```console\n\$ (oomtrace why .*?)```", PAGE, re.DOTALL)
    assert f"$ {example}" in (ROOT / "docs" / "why.md").read_text()


def test_options() -> None:
    """Every option in the page exists."""
    shown_, others = set(), {"--cap-add", "--pid", "--security-opt"}
    for verb in ("run", "why", "parse"):
        command = [sys.executable, "-m", "tracer", verb, "--help"]
        help_ = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        shown_ |= set(re.findall(r"(?<![\w-])--[a-z-]+", help_))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert named
    assert named - others <= shown_
