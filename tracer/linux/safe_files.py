# SPDX-License-Identifier: Apache-2.0
"""Reads files that others wrote, below one folder, whatever they put there.

Runtimes keep what they know of a container in files, and some of them belong to users who mean no good: a file may be
a FIFO, a device, a link to elsewhere, or have 100 MB.
"""

import ctypes
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

FILE_MAX_BYTES = 1 << 20
_PARTS_MAX = 256
"""Of a path, those of the links on it included."""
CACHED_MAX = 64
_NEW_NS = 100_000_000
"""A file that is as new may change once more without its times showing that."""

_SYS_OPENAT2 = 437
"""The same number on all architectures (since Linux 5.6)."""
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08


class _OpenHow(ctypes.Structure):
    """``struct open_how``, openat2(2)."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class FileStamp(NamedTuple):
    """What changes when a file does."""

    device: int
    inode: int
    size_bytes: int
    written_ns: int
    changed_ns: int


_cache: OrderedDict[tuple[str, str, Callable[[bytes, str], Any]], tuple[FileStamp, Any]] = OrderedDict()


class UnreadableError(Exception):
    """There is something, but it cannot be read, or is not what it should be; the text says what."""


def read_file(folder: str, name: str, max_bytes: int = FILE_MAX_BYTES) -> bytes | None:
    """The file ``name`` below ``folder``; None where there is none.

    Raises UnreadableError.
    """
    descriptor = open_file(folder, name)
    if descriptor is None:
        return None
    try:
        status = os.fstat(descriptor)
        if status.st_size > max_bytes:
            raise UnreadableError(f"{folder}/{name}: {status.st_size} bytes, more than {max_bytes}")
        data = os.read(descriptor, status.st_size + 1)  # as much as it has: the buffer is taken beforehand
    except OSError as error:
        raise UnreadableError(f"{folder}/{name}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) > status.st_size:
        raise UnreadableError(f"{folder}/{name}: grew while it was read")
    return data


def read_cached(folder: str, name: str, make: Callable[[bytes, str], T]) -> T | None:
    """What ``make`` makes of the file's contents and path, once for as long as the file does not change.

    What is made is kept, of the KEPT_MAX files that were asked for last: it is to be small, and nobody may change it.

    Raises UnreadableError, and what ``make`` raises.
    """
    stamp = read_stamp(folder, name)
    if stamp is None:
        return None
    key = folder, name, make
    kept = _cache.get(key)
    if kept is not None and kept[0] == stamp:
        made: T = kept[1]
        return made
    data = read_file(folder, name)
    if data is None:
        return None
    made = make(data, f"{folder}/{name}")
    _cache.pop(key, None)
    if time.time_ns() - stamp.changed_ns > _NEW_NS:
        _cache[key] = stamp, made
        if len(_cache) > CACHED_MAX:
            _cache.popitem(last=False)
    return made


def read_stamp(folder: str, name: str) -> FileStamp | None:
    """Of the regular file ``name`` below ``folder``; None where there is none.

    Raises UnreadableError.
    """
    descriptor = open_file(folder, name)
    if descriptor is None:
        return None
    status = os.fstat(descriptor)
    os.close(descriptor)
    return FileStamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def open_file(folder: str, name: str) -> int | None:
    """A descriptor of the regular file ``name`` below ``folder``, to read from; None where there is none.

    ``folder`` may be a link, as administrators move such folders; what is below may not lead out of it.  Never waits
    for a writer.

    Raises UnreadableError.
    """
    try:
        descriptor = _open(folder, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableError(f"{folder}/{name}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableError(f"{folder}/{name}: not a regular file")
    return descriptor


def list_directory(folder: str, name: str = ".", count_max: int = 100_000) -> Iterator[str]:
    """What is in the folder ``name`` below ``folder``; nothing where there is none.

    Raises UnreadableError.
    """
    try:
        descriptor = _open(folder, name, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UnreadableError(f"{folder}/{name}: {error.strerror}") from error
    try:
        with os.scandir(descriptor) as entries:
            for _, entry in zip(range(count_max), entries, strict=False):
                yield entry.name
    except OSError as error:
        raise UnreadableError(f"{folder}/{name}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def directory_owner(folder: str) -> int | None:
    """Who, beside root, decides what this folder holds: the first other user to whom a part of its path belongs, be it
    a folder or a link; 0: root alone; None: there is no such folder."""
    left, at = folder.split("/")[::-1], "/"
    for _ in range(_PARTS_MAX):
        if not left:
            return 0
        at = os.path.join(at, left.pop())
        try:
            status = os.lstat(at)
            target = os.readlink(at) if stat.S_ISLNK(status.st_mode) else None
        except PermissionError:
            return 0  # reading it says so, too
        except OSError:
            return None
        if status.st_uid != 0:
            return status.st_uid
        if target is not None:
            left += target.split("/")[::-1]
            at = "/" if target.startswith("/") else os.path.dirname(at)
    return None


def _open(folder: str, name: str, flags: int) -> int:
    base = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
        descriptor = _syscall(
            _SYS_OPENAT2, base, os.fsencode(name), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return int(descriptor)
    finally:
        os.close(base)
