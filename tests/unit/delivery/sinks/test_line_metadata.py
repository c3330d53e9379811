# SPDX-License-Identifier: Apache-2.0
"""sinks/line_metadata.py: what a broker or a store gets beside the line."""

import pytest

from tests.harness.records import shown
from tracer.delivery.sinks.line_metadata import line_metadata
from tracer.encoding import encoder
from tracer.encoding.styles import STYLES

NOTHING = (None, None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"type":"oom_kill","id":"a","host":{"name":"n"}}\n', ("n", "oom_kill", ("oom_kill", "a"))),
        (b'{"type":"oom_kill","id":"a","host.name":"n"}\n', ("n", "oom_kill", ("oom_kill", "a"))),
        (b'{"type":"start","host":{"name":null}}\n', (None, "start", None)),
        (b'{"type":1,"id":[],"host":"n"}\n', NOTHING),
        (b'["type"]\n', NOTHING),
        (b"\xff\n", NOTHING),
        (b"", NOTHING),
    ],
)
def test_any_line(text: bytes, expected: tuple[object, object, object]) -> None:
    """Any line has metadata; a field that it does not have is None."""
    metadata = line_metadata(text)
    assert (metadata.host, metadata.type, metadata.id) == expected


@pytest.mark.parametrize("style", STYLES)
def test_every_style(style: str) -> None:
    """Host, type and id are the same in every style."""
    metadata = line_metadata(encoder.encode(shown(), style=STYLES[style]))
    assert (metadata.host, metadata.type, metadata.id) == (
        shown()["host"]["name"],
        "oom_kill",
        ("oom_kill", shown()["id"]),
    )
