# SPDX-License-Identifier: Apache-2.0
"""checks.py: required and optional checks, and their remedies."""

import os
from pathlib import Path

import pytest

from tracer.capture import kernel_features
from tracer.doctor import checks


def test_spare_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """With BTF bcc is not needed; without BTF the remedy names the package to install."""
    monkeypatch.setattr("tracer.capture.engine_bcc.SYSTEM_PYTHON", "/nowhere/python3")
    (found,) = (check for check in checks.run_checks() if check.name == "engine bcc")
    has_btf = os.path.exists(kernel_features.BTF)
    assert (found.ok, found.needed, found.spare) == (False, not has_btf, has_btf)
    assert "apt install python3-bpfcc" in found.remedy
    core = checks.Check("engine core", True, True, "BTF", "")
    assert checks.summarize([core, found._replace(needed=False, spare=True)]) == (
        "This host can be traced, with every field."
    )
    assert checks.summarize([core._replace(ok=False), found._replace(needed=True, spare=False)]).startswith(
        "This host cannot be traced yet"
    )


def test_without_btf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without BTF and bcc both engines are needed, and the host cannot trace."""
    monkeypatch.setattr("tracer.capture.engine_bcc.SYSTEM_PYTHON", "/nowhere/python3")
    monkeypatch.setattr("tracer.capture.kernel_features.BTF", "/nowhere/vmlinux")
    found = {check.name: check for check in checks.run_checks()}
    assert [found[name].needed for name in ("engine core", "engine bcc")] == [True, True]
    assert not checks.can_trace(list(found.values()))


def test_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The service's configuration file, if there is one, and the access to its metrics port."""
    path, token = tmp_path / "config.toml", tmp_path / "token"
    monkeypatch.setattr("tracer.doctor.checks.CONFIG_FILE", str(path))

    def found() -> list[tuple[bool, str]]:
        return [(each.ok, each.finding) for each in checks.run_checks() if each.name == "configuration"]

    assert found() == []
    path.write_text(f'metrics = ["9814?token-file={token}"]')
    assert found() == [(False, f"cannot read {token} (No such file or directory)")]
    token.write_text("geheim")
    assert found() == [(True, f"{path} is valid; metrics at 127.0.0.1:9814 (token)")]
    path.write_text('metrics = ["9814?token=geheim"]')
    ((ok, said),) = found()
    assert not ok
    assert "line 1" in said
    assert "geheim" not in said


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[none] integrity confidentiality\n", [(True, "none")]),
        ("none [integrity] confidentiality\n", [(True, "integrity")]),
        (
            "none integrity [confidentiality]\n",
            [(False, "mode confidentiality prevents BPF programs from reading kernel memory")],
        ),
        (None, []),
    ],
)
def test_lockdown(
    text: str | None, found: list[tuple[bool, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only mode confidentiality prevents tracing; without securityfs there is no check."""
    path = tmp_path / "lockdown"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr("tracer.capture.kernel_features.LOCKDOWN", str(path))
    examined = checks.run_checks()
    assert [(each.ok, each.finding) for each in examined if each.name == "lockdown"] == found
    if found == [] or not found[0][0]:
        assert checks.can_trace([each for each in examined if each.name == "lockdown"]) is (found == [])
