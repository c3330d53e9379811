# SPDX-License-Identifier: Apache-2.0
"""Real kills: the page agrees with the kernel log and the cgroup's count."""

import os
import re
import subprocess
from pathlib import Path

from selenium.webdriver.common.keys import Keys

from tests.harness.cgroups import Cgroup
from tests.harness.environment import wait_until
from tests.kernel.conftest import Eat, MakeDaemon
from tracer.records.summary import describe_kill

from .browser import Browser
from .conftest import run_report

CONTAINER = f"{os.getpid():064x}"


def test_real_kills(make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat, browser: Browser, tmp_path: Path) -> None:
    """Three kills, records and kernel log together: three incidents, each with its lines of the kernel log."""
    daemon = make_daemon()
    daemon.wait_ready()
    group = cgroup.child("docker").child(CONTAINER, 16)
    eaters = [eat(32, group, comm=f"eater-{number}").die() for number in range(3)]
    mine = {eater.pid for eater in eaters}
    wait_until("their exits", lambda: mine <= {record["pid"] for record in daemon.of_type("oom_exit")})
    daemon.stop()
    log = tmp_path / "dmesg.txt"
    log.write_bytes(subprocess.run(["dmesg"], check=True, capture_output=True, timeout=20).stdout)
    browser.show(run_report(daemon.output, log, output=tmp_path / "report.html"))
    records = [record for record in daemon.of_type("oom_kill") if record["victim"]["pid"] in mine]
    assert len(records) == group.oom_kills() == 3
    browser.find("#text").send_keys(f"/docker/{CONTAINER}")
    browser.wait_for(
        "three incidents", "return document.getElementById('incidents-title').textContent === 'Incidents (3)'"
    )
    browser.js("document.getElementById('list').focus()")
    for number, record in enumerate(reversed(records)):
        browser.keys(Keys.ARROW_DOWN if number else Keys.HOME)
        assert browser.text("#incident-title") == describe_kill(record)  # type: ignore[arg-type]
        killed = re.compile(rf"Killed process {record['victim']['pid']} \({record['victim']['comm']}\)")
        assert len(killed.findall(log.read_text("utf-8", "replace"))) == 1
        # They are rendered after the key, once the details are open.
        browser.wait_for("the lines", "return document.querySelector('#incident-body pre').textContent")
        assert len(killed.findall(browser.text("#incident-body pre"))) == 1
        assert "gone after" in browser.text("#incident-body dl")
