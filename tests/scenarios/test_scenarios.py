# SPDX-License-Identifier: Apache-2.0
"""Every scenario makes the expected records, on a host with the installed package."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.harness.environment import ENGINE, IN_VM, ROOT, not_applicable
from tests.runtimes.runtime import SYSTEMD

VAGRANT = ROOT / "vagrant"
NAMES = sorted(path.stem for path in (VAGRANT / "scenarios").glob("*.sh") if path.stem != "lib")
DEFAULTS = Path("/etc/default/oomtrace")
PROVISION_S = 400
SCENARIO_S = 700


@pytest.fixture(scope="module", autouse=True)
def provisioned() -> None:
    """The machine after vagrant/provision.sh; it is discarded afterwards."""
    if not IN_VM or not SYSTEMD:
        not_applicable("scenarios are for a virtual machine with systemd: make test-systemd ARGS='--suite scenarios'")
    subprocess.run(["sh", VAGRANT / "provision.sh", ROOT], check=True, timeout=PROVISION_S)
    DEFAULTS.write_text(f'OOMTRACE_OPTIONS="--engine {ENGINE}"\n')
    subprocess.run(["systemctl", "restart", "oomtrace.service"], check=True, timeout=PROVISION_S)


@pytest.mark.parametrize("name", NAMES)
def test_scenario(name: str, tmp_path: Path) -> None:
    """The records of the scenario are as expected, and it stops cleanly."""
    results = tmp_path / "results.json"
    finished = subprocess.run(
        ["oom-scenario", name, "--results", results], capture_output=True, text=True, timeout=SCENARIO_S
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    result = json.loads(results.read_text())["scenarios"][name]
    if result["result"] == "not applicable":
        not_applicable(result["detail"])
