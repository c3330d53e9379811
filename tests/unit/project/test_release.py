# SPDX-License-Identifier: Apache-2.0
"""Requirements of a release: deploy/release/check.py reports what is missing."""

import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.release.check import VERSIONED, missing, version
from tests.harness.environment import ROOT, not_applicable
from tracer import __version__

CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [{version}] - 2026-12-01\n\n### Added\n\n- All.\n"


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Mary", "-c", "user.email=mary@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout that is ready for a release."""
    for name in (*VERSIONED, "tracer/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG.format(version=__version__))
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def commit(root: Path) -> None:
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "a release")
    git(root, "tag", "--force", f"v{version(root)}")


def test_nothing_is_missing(root: Path) -> None:
    assert list(missing(root)) == []


def test_tag(root: Path) -> None:
    """The version's tag must be on this commit."""
    git(root, "commit", "--quiet", "--allow-empty", "--message", "one more")
    assert list(missing(root)) == [f"this commit has no tag v{__version__}: git tag --sign v{__version__}"]


def test_uncommitted(root: Path) -> None:
    """An uncommitted file would be in the sdist."""
    (root / "scratch").touch()
    assert list(missing(root)) == ["files are not committed: ?? scratch"]


@pytest.mark.parametrize(
    ("changelog", "expected"),
    [
        ("## [0.0.9] - 2026-01-01\n", "CHANGELOG.md: no section"),
        ("## [{version}]\n", "has no date"),
        ("## [Unreleased]\n\n- New.\n\n## [{version}] - 2026-12-01\n", "[Unreleased] is not empty"),
    ],
)
def test_changelog(root: Path, changelog: str, expected: str) -> None:
    (root / "CHANGELOG.md").write_text(changelog.format(version=__version__))
    commit(root)
    (found,) = missing(root)
    assert expected in found


@pytest.mark.parametrize("name", VERSIONED)
def test_named_versions(root: Path, name: str) -> None:
    """Each file with the version must have this one."""
    text = (root / name).read_text()
    assert __version__ in text
    (root / name).write_text(text.replace(__version__, "9.8.7"))
    commit(root)
    assert list(missing(root)) == [f"{name}: names version 9.8.7, not {__version__}"]


def test_every_named_version() -> None:
    """No other file has a command or file name with the version."""
    if not (ROOT / ".git").exists():
        not_applicable("a copy without its history")
    names = [word for separator in ":_" for word in ("-e", f"oomtrace{separator}{__version__}")]
    command = ["git", "-c", "safe.directory=*", "grep", "-l", "--fixed-strings", *names, "--", ":!tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= set(VERSIONED)


def test_development_version(root: Path) -> None:
    init = root / "tracer/__init__.py"
    init.write_text(init.read_text().replace(__version__, "1.0.dev1"))
    assert "tracer/__init__.py: '1.0.dev1' is not a version of a release (MAJOR.MINOR.PATCH)" in list(missing(root))
