# SPDX-License-Identifier: Apache-2.0
"""doctor.py: what is missed, what nobody misses, and what to do about it."""

import os
from pathlib import Path

import pytest

from tracer import doctor, features


def test_spare_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without bcc misses nothing where the kernel has BTF; without BTF it is told which package to install."""
    monkeypatch.setattr("tracer.engine_bcc.SYSTEM_PYTHON", "/nowhere/python3")
    (found,) = (check for check in doctor.examine() if check.name == "engine bcc")
    has_btf = os.path.exists(features.BTF)
    assert (found.ok, found.needed, found.spare) == (False, not has_btf, has_btf)
    assert "apt install python3-bpfcc" in found.remedy
    core = doctor.Check("engine core", True, True, "BTF", "")
    assert doctor.summary([core, found._replace(needed=False, spare=True)]) == (
        "This host can be traced, with every field."
    )
    assert doctor.summary([core._replace(ok=False), found._replace(needed=True, spare=False)]).startswith(
        "This host cannot be traced yet"
    )


def test_without_btf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then bcc is what is missing."""
    monkeypatch.setattr("tracer.engine_bcc.SYSTEM_PYTHON", "/nowhere/python3")
    monkeypatch.setattr("tracer.features.BTF", "/nowhere/vmlinux")
    checks = {check.name: check for check in doctor.examine()}
    assert [checks[name].needed for name in ("engine core", "engine bcc")] == [True, True]
    assert not doctor.can_trace(list(checks.values()))


def test_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The service's configuration, if there is one: what the metrics port asks for, and what is missing."""
    path, token = tmp_path / "config.toml", tmp_path / "token"
    monkeypatch.setattr("tracer.doctor.CONFIG", str(path))

    def found() -> list[tuple[bool, str]]:
        return [(each.ok, each.finding) for each in doctor.examine() if each.name == "configuration"]

    assert found() == []
    path.write_text(f'metrics = ["9814?token-file={token}"]')
    assert found() == [(False, f"cannot read {token} (No such file or directory)")]
    token.write_text("geheim")
    assert found() == [(True, f"{path} is right; metrics at 127.0.0.1:9814 (token)")]
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
            [(False, "mode confidentiality forbids BPF programs to read kernel memory")],
        ),
        (None, []),
    ],
)
def test_lockdown(
    text: str | None, found: list[tuple[bool, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only mode confidentiality keeps a host from being traced; without securityfs doctor says nothing of it."""
    path = tmp_path / "lockdown"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr("tracer.features.LOCKDOWN", str(path))
    checks = doctor.examine()
    assert [(each.ok, each.finding) for each in checks if each.name == "lockdown"] == found
    if found == [] or not found[0][0]:
        assert doctor.can_trace([each for each in checks if each.name == "lockdown"]) is (found == [])
