# SPDX-License-Identifier: Apache-2.0
"""Files for the forge: workflows, issue forms, the security policy."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.harness.environment import ROOT

GITHUB = ROOT / ".github"
SCHEMAS = {
    GITHUB / "workflows/ci.yml": "github-workflows",
    GITHUB / "ISSUE_TEMPLATE/bug.yml": "github-issue-forms",
    GITHUB / "ISSUE_TEMPLATE/feature.yml": "github-issue-forms",
    GITHUB / "ISSUE_TEMPLATE/config.yml": "github-issue-config",
}


def check_schema(file: Path, schema: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("file", SCHEMAS, ids=lambda file: file.name)
def test_schema(file: Path, tmp_path: Path) -> None:
    """Each file is valid by the forge's schema, and invalid with an unknown key."""
    done = check_schema(file, SCHEMAS[file])
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / file.name
    broken.write_text(file.read_text() + "unknown_key: 1\n")
    assert check_schema(broken, SCHEMAS[file]).returncode == 1


def test_every_file() -> None:
    assert {path for path in GITHUB.rglob("*") if path.is_file()} == set(SCHEMAS)


def test_workflow_audit() -> None:
    """zizmor passes: actions pinned by hash, minimal permissions, no untrusted input in a shell."""
    command = [str(Path(sys.executable).with_name("zizmor")), "--offline", "--persona=pedantic", str(GITHUB)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflow_runs_what_ci_runs() -> None:
    """The workflow calls only .ci/run and targets of the Makefile."""
    jobs = yaml.safe_load((GITHUB / "workflows/ci.yml").read_text())["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert commands["test"] == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    assert commands["pythons"] == ["make test-pythons"]


def test_security_policy() -> None:
    """SECURITY.md links to docs/security.md, and has no address."""
    policy = (ROOT / "SECURITY.md").read_text()
    assert "(docs/security.md)" in policy
    assert not re.findall(r"https?://|\S@\S", policy)
