# SPDX-License-Identifier: Apache-2.0
"""host.py: which host it is."""

import os

import pytest

from tracer.records.host import NODE_NAME, read_host


@pytest.mark.parametrize(
    ("node", "expected"), [("node-7", "node-7"), ("", os.uname().nodename), (None, os.uname().nodename)]
)
def test_name(monkeypatch: pytest.MonkeyPatch, node: str | None, expected: str) -> None:
    """A pod is told the name of its node; elsewhere the kernel's name counts."""
    monkeypatch.delenv(NODE_NAME, raising=False)
    if node is not None:
        monkeypatch.setenv(NODE_NAME, node)
    assert read_host()["name"] == expected
