# SPDX-License-Identifier: Apache-2.0
"""Mounts small file systems, and fills them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path


def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """Mount a file system with the arguments of mount(8); it is unmounted at the next step."""
    folder.mkdir()
    subprocess.run(["mount", *arguments, str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Fill a file system; the file to remove to free it."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler
