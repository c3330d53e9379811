# SPDX-License-Identifier: Apache-2.0
"""The kernel's reports as a real rsyslogd writes them, in each of its formats."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness.environment import require
from tests.harness.kernel_log_files import FILES, lines, reports
from tests.harness.lines import wait_for
from tests.harness.log_formats import SPLIT
from tracer.logs.kills import KillSearch

TEMPLATES = {
    "RSYSLOG_TraditionalFileFormat": "kern.log, as Debian had it until 11",
    "RSYSLOG_FileFormat": "kern.log since Debian 12: RFC 3339",
    "RSYSLOG_SyslogProtocol23Format": "RFC 5424",
}
NAMES = [name for name in FILES if name != "7.2-oddname"]  # with newlines in names: test_log_format.py
UPTIME = {"with uptime": "on", "without": "off"}


@pytest.fixture(scope="module", params=UPTIME)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that rsyslogd wrote from a substitute for /proc/kmsg with the text of ``dmesg -r``."""
    program = shutil.which("rsyslogd", path=f"{os.environ['PATH']}:/usr/sbin")
    require(program, "rsyslogd (package rsyslog)")
    assert program is not None
    here = tmp_path_factory.mktemp("rsyslog")
    (here / "kmsg").write_bytes(b"".join(SPLIT["dmesg -r"](lines(FILES[name])) for name in NAMES))
    actions = [f'action(type="omfile" file="{here}/{name}" template="{name}")' for name in TEMPLATES]
    configuration = [
        f'global(workDirectory="{here}")',
        f'module(load="imklog" logpath="{here}/kmsg" keepkerneltimestamp="{UPTIME[request.param]}")',
        *actions,
        "",
    ]
    (here / "rsyslog.conf").write_text("\n".join(configuration))
    command = [program, "-n", "-f", str(here / "rsyslog.conf"), "-i", str(here / "pid")]
    expected = (here / "kmsg").read_bytes().count(b"\n")
    with (here / "stderr").open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
    try:
        wait_for(
            lambda: all((here / name).exists() and _lines(here / name) >= expected for name in TEMPLATES), seconds=60
        )
    finally:
        process.terminate()
        process.wait(20)
    return here


def _lines(file: Path) -> int:
    return sum(b" kernel" in line for line in file.read_bytes().splitlines())


@pytest.mark.parametrize("template", TEMPLATES)
def test_format(folder: Path, template: str) -> None:
    """Each kill is found, with all values of the log."""
    expected = [report for name in NAMES for report in reports(lines(FILES[name]))]
    found = list(KillSearch().kills([str(folder / template)]))
    assert [each.tid for each in expected] == [record["victim"]["tid"] for record in found]
    for report, record in zip(expected, found, strict=True):
        victim, limit = record["victim"], record["limit"]
        assert record["host"]["name"] == os.uname().nodename.partition(".")[0]
        assert record["time"] is not None
        assert victim["comm"] == report.comm.decode("utf-8", "backslashreplace")
        assert (victim["uid"], victim["anon_rss_bytes"]) == (report.uid, report.anon_rss_bytes)
        if report.limit_cgroup is not None and limit is not None:
            assert limit["cgroup"] == report.limit_cgroup.decode("utf-8", "backslashreplace")
        assert (record["candidates"] is None) is (report.tasks is None)
