# SPDX-License-Identifier: Apache-2.0
"""Links in README, CONTRIBUTING, CHANGELOG and docs/: their files and headings exist.

Addresses of other hosts are not asked.
"""

import posixpath
import re
import runpy
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import cmarkgfm
import pytest

from tests.harness import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


class Page(HTMLParser):
    """Links of a page, and the anchors of its headings as made by a forge."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: list[str] = []
        self._heading: str | None = None
        self._slugs: Counter[str] = Counter()
        self.feed(cmarkgfm.github_flavored_markdown_to_html(markdown))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("href", "src") and value is not None]
        if re.fullmatch("h[1-6]", tag):
            self._heading = ""

    def handle_data(self, data: str) -> None:
        if self._heading is not None:
            self._heading += data

    def handle_endtag(self, tag: str) -> None:
        if self._heading is not None and re.fullmatch("h[1-6]", tag):
            slug = re.sub(r"[^\w\- ]", "", self._heading.strip().lower()).replace(" ", "-")
            self.anchors.append(f"{slug}-{self._slugs[slug]}" if self._slugs[slug] else slug)
            self._slugs[slug] += 1
            self._heading = None


def wrong(page: Path, markdown: str) -> list[str]:
    """Broken links of a page."""
    found = []
    for link in Page(markdown).links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = ROOT / posixpath.normpath(posixpath.join(page.parent.relative_to(ROOT), path)) if path else page
        there = markdown if target == page else target.read_text() if target.suffix == ".md" and target.exists() else ""
        if not target.is_file() or (anchor and anchor not in Page(there).anchors):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    """All links are valid: to files, and to headings of any page."""
    assert wrong(page, page.read_text()) == []


@pytest.mark.parametrize(
    ("link", "is_wrong"),
    [
        ("record.md", False),
        ("record.md#what-each-field-answers", False),
        ("../README.md#install", False),
        ("#here-and-there", False),
        ("https://example.org/gone#nowhere", False),
        ("images/report.png", False),
        ("output.md", True),
        ("record.md#what-each-field-tells", True),
        ("#there", True),
        ("../deploy", True),
    ],
)
def test_kinds(link: str, is_wrong: bool) -> None:
    """Broken links are found; a directory is not a page of the site, so a link to it is broken."""
    markdown = f"# Here, and *there*\n\n[text]({link}) `[code](gone.md)`\n\n```\n[code](gone.md)\n```\n"
    assert wrong(ROOT / "docs" / "README.md", markdown) == ([link] if is_wrong else [])


def test_index() -> None:
    """docs/README.md links to every page."""
    index = ROOT / "docs" / "README.md"
    linked = {link.partition("#")[0] for link in Page(index.read_text()).links}
    assert {page.name for page in PAGES if page.parent == index.parent} - {index.name} <= linked


def test_navigation() -> None:
    """The site's table of contents, made from docs/README.md, has every page once, and starts with README."""
    navigation = runpy.run_path(str(ROOT / "docs" / "conf.py"))["navigation"]()
    listed = [line for line in navigation.splitlines() if re.fullmatch(r"[\w/-]+", line)]
    assert sorted(listed) == sorted(
        str(page.relative_to(ROOT).with_suffix("")) for page in PAGES if page != ROOT / "README.md"
    )
