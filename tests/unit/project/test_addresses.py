# SPDX-License-Identifier: Apache-2.0
"""Mail addresses and hosts in the project's files: real ones, or names that RFC 2606 reserves for examples."""

import re

from tests.harness.environment import ROOT

MAIL = re.compile(r"(?<![\w/:])[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}\b", re.IGNORECASE)
EXAMPLE = re.compile(r"@(?:[\w-]+\.)*(?:example|example\.(?:com|net|org))$")
UNIT = re.compile(r"\.(?:service|slice|scope|socket|mount)$")
"""Units of systemd look like addresses: user@1000.service."""
FOLDERS = (".ci", ".github", "bpf", "deploy", "docs", "tracer", "vagrant")
TEXT = frozenset({"", ".c", ".h", ".md", ".py", ".sh", ".toml", ".yaml", ".yml", ".service", ".conf", ".cfg"})


def invalid(text: str) -> list[str]:
    """Mail addresses and hosts that cannot exist."""
    mail = [found for found in MAIL.findall(text) if not EXAMPLE.search(found) and not UNIT.search(found)]
    return sorted({*mail, *re.findall(r"[\w.@-]+\.(?:invalid|localdomain)\b", text)})


def test_addresses() -> None:
    """No file has a mail address: the project has none, and packages get that of who builds them."""
    files = [path for name in FOLDERS for path in (ROOT / name).rglob("*") if path.is_file() and path.suffix in TEXT]
    files += [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "Makefile"]
    assert len(files) > 200
    found = {str(path.relative_to(ROOT)): invalid(path.read_text()) for path in files}
    assert {path: addresses for path, addresses in found.items() if addresses} == {}


def test_invalid() -> None:
    """Invalid addresses are found, and examples are not."""
    text = "Maintainer: x <x@oomtrace.invalid>, bob@company.com; alice@example.org user@1000.service pip@v1.2"
    assert invalid(text) == ["bob@company.com", "x@oomtrace.invalid"]
