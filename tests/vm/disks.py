# SPDX-License-Identifier: Apache-2.0
"""Makes the ext4 and swap images and the initramfs of guests, without mounting anything."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from .debian import LabError, output

Entry = tuple[str, int, bytes]  # name in the archive, st_mode, content


def write_ext4(folder: Path, image: Path, size: str = "2G") -> None:
    """Make a sparse ext4 image with a copy of a directory."""
    part = image.with_suffix(".part")
    part.unlink(missing_ok=True)
    # No journal, because guests are killed and their writes discarded.  Initialized inode tables, because a kernel
    # thread of each guest would initialize them otherwise.
    options = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "lazy_itable_init=0"]
    output("/sbin/mke2fs", *options, "-d", folder, part, size)
    part.rename(image)


def write_swap(image: Path, size: int) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    image.chmod(0o600)
    output("/sbin/mkswap", "-q", image)


def write_initramfs(image: Path, entries: Iterable[Entry]) -> None:
    """Write a cpio archive in "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    with image.open("wb") as out:

        def put(data: bytes) -> None:
            out.write(data + bytes(-(out.tell() + len(data)) % 4))

        for inode, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
            encoded = os.fsencode(name) + b"\0"
            fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
            put(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
            put(data)


def tree(path: Path, name: str) -> Iterator[Entry]:
    """Entries for a file, or for a directory and its content, without byte code of the host's Python."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        yield name, mode, os.fsencode(path.readlink())
    elif stat.S_ISREG(mode):
        yield name, mode, path.read_bytes()
    elif stat.S_ISDIR(mode):
        yield name, mode, b""
        for inner in sorted(path.iterdir()):
            if inner.name != "__pycache__":
                yield from tree(inner, f"{name}/{inner.name}")


def read(image: Path, path: str) -> bytes:
    """Copy a file out of an ext4 image.

    Raises LabError if it does not exist.
    """
    with tempfile.TemporaryDirectory(prefix="vm-file-") as name:
        copy = Path(name) / "copy"
        output("/sbin/debugfs", "-R", f"dump {path} {copy}", image)
        if not copy.exists() or not copy.stat().st_size:  # its exit code is always 0
            raise LabError(f"{image} has no {path}")
        return copy.read_bytes()
