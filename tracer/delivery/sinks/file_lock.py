# SPDX-License-Identifier: Apache-2.0
"""A lock among oomtrace processes that write to the same place.

Any process that can read a file or a directory can flock(2) it, and hold the lock forever.  Therefore the lock is on a
file that only its owner can open; it is removed when the lock is released.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@contextlib.contextmanager
def hold_file_lock(path: str) -> Iterator[None]:
    """Hold the lock ``path``.

    Raises BlockingIOError if another process holds it, OSError if it cannot be used.
    """
    descriptor = _open_locked(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def _open_locked(path: str) -> int:
    while True:
        descriptor = os.open(path, _FLAGS, 0o600)
        try:
            own = os.fstat(descriptor)
            if own.st_uid != os.geteuid():
                raise OSError(errno.EPERM, f"{path} belongs to another user: remove it")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(own, os.stat(path, follow_symlinks=False)):
                    return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise BlockingIOError(error.errno, f"another oomtrace holds {path}") from error
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its previous holder has removed the file meanwhile
