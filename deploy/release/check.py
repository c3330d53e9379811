# SPDX-License-Identifier: Apache-2.0
"""In: a checkout.  Out: status 0 when a release can be made of it, else what is missing.

python3 -m deploy.release.check
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSIONED = (
    "deploy/container/Dockerfile",
    "deploy/kubernetes/daemonset.yaml",
    "docs/install.md",
    "docs/kubernetes.md",
    "README.md",
    ".github/ISSUE_TEMPLATE/bug.yml",
)
"""Files that name the version for people who copy from them."""
_NAMED = re.compile(r"(?:oomtrace[ :_])(\d+\.\d+\.\d+)\b")


def version(root: Path) -> str:
    found = re.search(r'^__version__ = "(.*)"$', (root / "tracer" / "__init__.py").read_text(), re.MULTILINE)
    assert found
    return found[1]


def missing(root: Path) -> Iterator[str]:
    """What keeps this checkout from being a release."""
    this = version(root)
    if not re.fullmatch(r"\d+\.\d+\.\d+", this):
        yield f"tracer/__init__.py: {this!r} is not a version of a release (MAJOR.MINOR.PATCH)"
    yield from _changelog((root / "CHANGELOG.md").read_text(), this)
    for name in VERSIONED:
        for named in set(_NAMED.findall((root / name).read_text())) - {this}:
            yield f"{name}: names version {named}, not {this}"
    if changed := _git(root, "status", "--porcelain"):
        yield f"files are not committed: {changed.splitlines()[0]}"
    if f"v{this}" not in _git(root, "tag", "--points-at", "HEAD").split():
        yield f"this commit has no tag v{this}: git tag --sign v{this}"


def _changelog(text: str, this: str) -> Iterator[str]:
    sections = dict(re.findall(r"^## \[([^\]]+)\](.*?)(?=^## \[|\Z)", text, re.MULTILINE | re.DOTALL))
    if this not in sections:
        yield f"CHANGELOG.md: no section [{this}] - YYYY-MM-DD"
    elif not re.match(r" - \d{4}-\d{2}-\d{2}\n", sections[this]):
        yield f"CHANGELOG.md: [{this}] has no date: ## [{this}] - YYYY-MM-DD"
    if sections.get("Unreleased", "").strip():
        yield f"CHANGELOG.md: [Unreleased] is not empty: its lines belong to [{this}]"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"release: git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def main() -> int:
    found = list(missing(ROOT))
    for each in found:
        print(f"release: {each}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
