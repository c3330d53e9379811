# SPDX-License-Identifier: Apache-2.0
"""Pins in a bpffs: files that keep a BPF map or link alive."""

import ctypes
import os
from collections.abc import Iterable

from tracer.base.log import warn
from tracer.linux import libbpf

MAGIC = 0xCAFE4A11
"""BPF_FS_MAGIC in include/uapi/linux/magic.h."""


def filesystem_magic(path: str) -> int:
    """The magic number of the file system at ``path`` (statfs(2)); Python's os.statvfs() omits it.

    Raises OSError.
    """
    buffer = (ctypes.c_long * 64)()  # struct statfs begins with f_type
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), buffer):
        raise libbpf.last_error()
    return int(buffer[0]) & 0xFFFFFFFF


def pin_object(descriptor: int, path: str) -> None:
    """Pin a map or a link.

    Raises OSError.
    """
    if libbpf.library().bpf_obj_pin(descriptor, os.fsencode(path)):
        error = libbpf.last_error()
        raise OSError(error.errno, f"{path}: {error.strerror}")


def remove_pins(folder: str) -> None:
    """Remove a directory of pins, ``about`` first: without it, an interrupted removal is recognized as incomplete.

    Raises OSError.
    """
    names: Iterable[str] = sorted(os.listdir(folder), key=lambda name: name != "about")
    for name in names:
        path = f"{folder}/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            remove_pins(path)
        else:
            os.unlink(path)
    os.rmdir(folder)


def try_remove_pins(folder: str) -> None:
    """Remove a directory of pins, or log that it cannot be removed."""
    try:
        remove_pins(folder)
    except OSError as error:
        warn(f"cannot remove {folder} ({error.strerror}); remove it manually")
