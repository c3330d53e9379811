# SPDX-License-Identifier: Apache-2.0
"""Small file systems, and how to leave no room in them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path


def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """Mount there what `mount` is told, until the next step."""
    folder.mkdir()
    subprocess.run(["mount", *arguments, str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room there is; the file to remove when there is to be room again."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler
