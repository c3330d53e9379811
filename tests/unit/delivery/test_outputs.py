# SPDX-License-Identifier: Apache-2.0
"""outputs.py: opening the outputs, and what happens if one cannot be opened."""

from pathlib import Path

import pytest

from tracer.base.errors import TracerError
from tracer.base.hung_disk import DiskWorker
from tracer.delivery.outputs import Outputs


def test_spool_that_cannot_be(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a usable spool directory records are delivered all the same, with a warning."""
    (tmp_path / "state").write_text("no folder")
    outputs = Outputs([f"file:{tmp_path}/x"])
    (output,) = outputs.start(f"{tmp_path}/state", DiskWorker())
    output.put(b"{}\n")
    output.close(5)
    assert (tmp_path / "x").read_bytes() == b"{}\n"
    said = capfd.readouterr().err
    assert "undelivered records are kept in memory only" in said
    assert said.count("\n") == 1


def test_none_is_left(tmp_path: Path) -> None:
    """A failed reconfiguration changes nothing."""
    outputs = Outputs([f"file:{tmp_path}/x"])
    (output,) = outputs.start(None, DiskWorker())
    for wanted in ([], [f"file:{tmp_path}/x", f"file:{tmp_path}/no/such/folder"]):
        with pytest.raises(TracerError):
            outputs.reconfigure(wanted)
    output.put(b"{}\n")
    output.close(5)
    assert (tmp_path / "x").read_bytes() == b"{}\n"
