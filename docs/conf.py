# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration of ``make site``: the pages at the top and docs/*.md as HTML in build/site.

The source directory is the project's top, so that links between these files are the same here and on a forge.
docs/README.md is the only list of pages: the navigation is made from its headings and links.
"""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tracer import __version__  # noqa: E402

project = "oomtrace"
version = release = __version__
copyright = "oomtrace maintainers"
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/*.md"]
# Not walked through: they are large.
exclude_patterns = [".*", "build", "dist", "tests", "tracer", "vagrant"]
extensions = ["myst_parser"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"oomtrace {__version__}"
html_show_sourcelink = False
html_copy_source = False


def navigation() -> str:
    """A hidden table of contents for each section of docs/README.md."""
    index = (ROOT / "docs" / "README.md").read_text()
    listed: set[str] = {"README"}
    parts = ["```{toctree}\n:hidden:\n\ndocs/README\n```"]
    for section in index.split("\n## ")[1:]:
        caption = section.partition("\n")[0]
        pages = [
            str((Path("/docs") / link).resolve().relative_to("/")).removesuffix(".md")
            for link in re.findall(r"\]\(([^)#]+\.md)(?:#[^)]*)?\)", section)
        ]
        new = [page for page in dict.fromkeys(pages) if page not in listed]
        listed.update(new)
        parts.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *new, "```"]))
    return "\n\n".join(parts)


def add_navigation(_app: Any, name: str, source: list[str]) -> None:
    if name == root_doc:
        source[0] += f"\n\n{navigation()}\n"


def add_index(app: Any, error: Exception | None) -> None:
    """A site begins with index.html."""
    if error is None:
        page = f'<!doctype html><title>oomtrace</title><meta http-equiv="refresh" content="0; url={root_doc}.html">\n'
        (Path(app.outdir) / "index.html").write_text(page)


def setup(app: Any) -> None:
    app.connect("source-read", add_navigation)
    app.connect("build-finished", add_index)
