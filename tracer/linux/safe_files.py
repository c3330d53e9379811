# SPDX-License-Identifier: Apache-2.0
"""Reads untrusted files below a directory.

Runtimes keep a container's metadata in files, and some of these belong to users, who may be hostile: a file may be a
FIFO, a device, a link to elsewhere, or have 100 MB.
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
_COMPONENTS_MAX = 256
"""Of a path, including the components of symbolic links on it."""
CACHED_MAX = 64
"""Files whose parsed contents are cached."""
_NEW_NS = 100_000_000
"""A file that changed this recently may change again with the same time stamps."""

_SYS_OPENAT2 = 437
"""The same number on all architectures; since Linux 5.6."""
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08


class _OpenHow(ctypes.Structure):
    """``struct open_how``, openat2(2)."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class FileStamp(NamedTuple):
    """Attributes that change when the file does."""

    device: int
    inode: int
    size_bytes: int
    written_ns: int
    changed_ns: int


_cache: OrderedDict[tuple[str, str, Callable[[bytes, str], Any]], tuple[FileStamp, Any]] = OrderedDict()


class UnreadableError(Exception):
    """A file exists but cannot be read, or has unexpected contents; the message names the file and the reason."""


def read_file(folder: str, name: str, max_bytes: int = FILE_MAX_BYTES) -> bytes | None:
    """Contents of the file ``name`` below ``folder``; None: there is no such file.

    Raises UnreadableError.
    """
    descriptor = open_file(folder, name)
    if descriptor is None:
        return None
    try:
        status = os.fstat(descriptor)
        if status.st_size > max_bytes:
            raise UnreadableError(f"{folder}/{name}: {status.st_size} bytes, more than {max_bytes}")
        data = os.read(descriptor, status.st_size + 1)  # os.read() allocates the whole buffer first
    except OSError as error:
        raise UnreadableError(f"{folder}/{name}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) > status.st_size:
        raise UnreadableError(f"{folder}/{name}: grew while it was read")
    return data


def read_cached(folder: str, name: str, parse: Callable[[bytes, str], T]) -> T | None:
    """Return ``parse(contents, path)``, cached until the file changes; None: there is no such file.

    The results for the CACHED_MAX files requested last are cached: they should be small, and must not be changed.

    Raises UnreadableError, and what ``parse`` raises.
    """
    stamp = read_stamp(folder, name)
    if stamp is None:
        return None
    key = folder, name, parse
    cached = _cache.get(key)
    if cached is not None and cached[0] == stamp:
        parsed: T = cached[1]
        return parsed
    data = read_file(folder, name)
    if data is None:
        return None
    parsed = parse(data, f"{folder}/{name}")
    _cache.pop(key, None)
    if time.time_ns() - stamp.changed_ns > _NEW_NS:
        _cache[key] = stamp, parsed
        if len(_cache) > CACHED_MAX:
            _cache.popitem(last=False)
    return parsed


def read_stamp(folder: str, name: str) -> FileStamp | None:
    """Stamp of the regular file ``name`` below ``folder``; None: there is no such file.

    Raises UnreadableError.
    """
    descriptor = open_file(folder, name)
    if descriptor is None:
        return None
    status = os.fstat(descriptor)
    os.close(descriptor)
    return FileStamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def open_file(folder: str, name: str) -> int | None:
    """Open the regular file ``name`` below ``folder`` for reading; None: there is no such file.

    ``folder`` may be a symbolic link, because administrators move such directories; links below it must not lead out
    of it.  Never blocks on a FIFO.

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
    """Names in the directory ``name`` below ``folder``, at most ``count_max``; empty: there is no such directory.

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
    """Uid of the first user, other than root, that owns a directory or link on the path, and so controls its contents;
    0: root only; None: there is no such directory."""
    left, at = folder.split("/")[::-1], "/"
    for _ in range(_COMPONENTS_MAX):
        if not left:
            return 0
        at = os.path.join(at, left.pop())
        try:
            status = os.lstat(at)
            target = os.readlink(at) if stat.S_ISLNK(status.st_mode) else None
        except PermissionError:
            return 0  # reading fails with the same error
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
        options = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
        descriptor = _syscall(
            _SYS_OPENAT2, base, os.fsencode(name), ctypes.byref(options), ctypes.c_size_t(ctypes.sizeof(options))
        )
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return int(descriptor)
    finally:
        os.close(base)
