# SPDX-License-Identifier: Apache-2.0
"""What the hardened unit permits the daemon."""

from pathlib import Path

from tests.harness.environment import ROOT
from tracer.config.options import PINS_DIR

UNIT = (ROOT / "deploy" / "oomtrace.service").read_text()


def words(setting: str) -> list[str]:
    """All values of a setting, in the order of its lines."""
    lines = (line.partition("=") for line in UNIT.splitlines() if line.startswith(f"{setting}="))
    return [word for _, _, value in lines for word in value.split()]


def test_pins_can_be_made() -> None:
    """The setting for the longest path applies: /sys is read-only except for the file system of the pins."""
    writable = {Path(path.removeprefix("-")) for path in words("ReadWritePaths")}
    read_only = {Path(path) for path in words("ReadOnlyPaths")}
    folder = Path(PINS_DIR)
    ruling = next(path for path in folder.parents if path in writable | read_only)
    assert ruling in writable - read_only
    assert Path("/sys") in read_only


def test_system_calls() -> None:
    """The system calls that load, attach, pin and unpin programs."""
    assert {"@system-service", "bpf", "perf_event_open"} <= set(words("SystemCallFilter"))


def test_a_reader_that_hangs_delays_no_restart() -> None:
    """The service manager waits only for the daemon, and less than two minutes."""
    assert words("KillMode") == ["process"]
    assert words("TimeoutStopSec") == ["10"]
