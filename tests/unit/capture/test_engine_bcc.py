# SPDX-License-Identifier: Apache-2.0
"""engine_bcc.py: what its programs are made of."""

from pathlib import Path

from tests.harness.compiler import BPF
from tracer.capture import btf_offsets, engine_bcc, engine_bcc_child


def test_source_files() -> None:
    """All of bpf/, of its folders too, and what the child compiles it with: another of these is another capture."""
    found = set(map(Path, engine_bcc.source_files()))
    assert {path for path in BPF.rglob("*") if path.suffix in (".c", ".h")} <= found
    assert {Path(str(module.__file__)) for module in (btf_offsets, engine_bcc_child)} <= found
    assert all(path.is_file() for path in found)
