# SPDX-License-Identifier: Apache-2.0
"""host.py: the host's identity."""

import os

import pytest

from tracer.records.host import NODE_NAME, read_host


@pytest.mark.parametrize(
    ("node", "expected"), [("node-7", "node-7"), ("", os.uname().nodename), (None, os.uname().nodename)]
)
def test_name(monkeypatch: pytest.MonkeyPatch, node: str | None, expected: str) -> None:
    """In a pod NODE_NAME has the node's name; otherwise the kernel's is used."""
    monkeypatch.delenv(NODE_NAME, raising=False)
    if node is not None:
        monkeypatch.setenv(NODE_NAME, node)
    assert read_host()["name"] == expected
