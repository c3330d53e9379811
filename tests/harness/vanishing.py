# SPDX-License-Identifier: Apache-2.0
"""Files of /proc whose thread or descriptor may end between listing and reading."""

from collections.abc import Iterable, Iterator
from pathlib import Path


def read_existing(paths: Iterable[Path]) -> Iterator[str]:
    """The texts of those that still exist."""
    for path in paths:
        try:
            text = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        yield text


def processes_below(pid: int) -> list[int]:
    """All descendants of a process."""
    texts = read_existing(Path(f"/proc/{pid}/task").glob("*/children"))
    children = [int(child) for text in texts for child in text.split()]
    return [found for child in children for found in (child, *processes_below(child))]
