# SPDX-License-Identifier: Apache-2.0
"""engine_bcc.py: the files that determine its programs."""

from pathlib import Path

from tests.harness.compiler import BPF
from tracer.capture import btf_offsets, engine_bcc, engine_bcc_child


def test_source_files() -> None:
    """All of bpf/, subdirectories included, and the child's modules: if one differs, the capture differs."""
    found = set(map(Path, engine_bcc.source_files()))
    assert {path for path in BPF.rglob("*") if path.suffix in (".c", ".h")} <= found
    assert {Path(str(module.__file__)) for module in (btf_offsets, engine_bcc_child)} <= found
    assert all(path.is_file() for path in found)
