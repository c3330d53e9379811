# SPDX-License-Identifier: Apache-2.0
"""In: folders and bytes.  Out: what a guest boots from: ext4 and swap images, the initramfs.  Nothing is mounted."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from .debian import LabError, output

Entry = tuple[str, int, bytes]  # name in the archive, st_mode, content


def write_ext4(folder: Path, image: Path, size: str = "2G") -> None:
    """An image with a copy of the folder; sparse, so that the size costs nothing."""
    part = image.with_suffix(".part")
    part.unlink(missing_ok=True)
    # No journal: guests are killed, and their writes are thrown away.  Initialized inode tables: else a kernel
    # thread of each guest does that work, again and again.
    options = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "lazy_itable_init=0"]
    output("/sbin/mke2fs", *options, "-d", folder, part, size)
    part.rename(image)


def write_swap(image: Path, size: int) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    image.chmod(0o600)
    output("/sbin/mkswap", "-q", image)


def write_initramfs(image: Path, entries: Iterable[Entry]) -> None:
    """A cpio archive in the kernel's "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    with image.open("wb") as out:

        def put(data: bytes) -> None:
            out.write(data + bytes(-(out.tell() + len(data)) % 4))

        for inode, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
            encoded = os.fsencode(name) + b"\0"
            fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
            put(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
            put(data)


def tree(path: Path, name: str) -> Iterator[Entry]:
    """Entries for a file, or for a folder and what lies in it; byte code of the host's Python is left out."""
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
    """A file in an ext4 image; LabError when there is none."""
    with tempfile.TemporaryDirectory(prefix="vm-file-") as name:
        copy = Path(name) / "copy"
        output("/sbin/debugfs", "-R", f"dump {path} {copy}", image)
        if not copy.exists() or not copy.stat().st_size:  # its exit status is 0 whatever happens
            raise LabError(f"{image} has no {path}")
        return copy.read_bytes()
