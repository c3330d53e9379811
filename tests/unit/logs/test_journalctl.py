# SPDX-License-Identifier: Apache-2.0
"""The output of the real journalctl for a real journal, in each format with times."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness.environment import require
from tests.harness.kernel_log_files import FILES, lines, reports
from tests.harness.log_formats import BOOT_NS, HOST, WHOLE
from tracer.base.clock import format_rfc3339
from tracer.logs.kills import KillSearch, ReadOptions

REMOTE = "/lib/systemd/systemd-journal-remote"
LOG = [line for log in FILES.values() for line in lines(log)]
WHOLE_FORMS = ("json", "export")
TEXT_FORMS = (
    "short", "short-precise", "short-iso", "short-iso-precise", "short-full", "short-unix", "short-monotonic",
    "short-delta", "with-unit",
)  # fmt: skip


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal that systemd wrote, with all reports."""
    require(os.access(REMOTE, os.X_OK), f"{REMOTE} (package systemd-journal-remote)")
    require(shutil.which("journalctl"), "journalctl")
    folder = tmp_path_factory.mktemp("journal")
    (folder / "export").write_bytes(WHOLE["journal export"](LOG))
    command = [REMOTE, "-o", str(folder / "x.journal"), str(folder / "export")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder / "x.journal"


@pytest.mark.parametrize("form", [*WHOLE_FORMS, *TEXT_FORMS])
def test_form(journal: Path, form: str, tmp_path: Path) -> None:
    """All kills are found; in text, except those with names that are not UTF-8, which it does not show."""
    command = ["journalctl", f"--file={journal}", "-k", "--no-pager", "-o", form]
    shown = subprocess.run(
        command, check=True, capture_output=True, timeout=120, env={**os.environ, "TZ": "UTC"}
    ).stdout  # fmt: skip
    (tmp_path / form).write_bytes(shown)
    expected = reports(LOG)
    if form in TEXT_FORMS:
        assert b" blob data]" in shown
    found = list(
        KillSearch(options=ReadOptions(boot_time="2026-11-24T06:00:00Z", timezone="UTC")).kills([str(tmp_path / form)])
    )
    tids = [record["victim"]["tid"] for record in found]
    for report in expected:
        if form in WHOLE_FORMS or all(byte in (9, 10) or 32 <= byte < 127 for byte in report.comm):
            assert report.tid in tids
    assert len(tids) <= len(expected)
    times: dict[int, set[str]] = {}
    for report in expected:
        times.setdefault(report.tid, set()).add(format_rfc3339((report.time_ns or 0) + BOOT_NS)[:19])
    for record in found:
        assert record["host"]["name"] == HOST
        assert (record["host"]["boot_id"] is not None) is (form in WHOLE_FORMS)
        assert record["time"] is not None
        assert record["time"][:19] in times[record["victim"]["tid"]]
