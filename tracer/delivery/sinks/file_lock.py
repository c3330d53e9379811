# SPDX-License-Identifier: Apache-2.0
"""One oomtrace at a time, of those that write to the same place.

Who may read a file or a folder may flock(2) it, and hold that for ever.  So what is locked is a file that only its
owner can open; it is removed when it is no longer held.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@contextlib.contextmanager
def hold_file_lock(path: str) -> Iterator[None]:
    """Hold the lock of this name.

    Raises BlockingIOError where another one holds it, OSError where it cannot be used.
    """
    descriptor = _locked(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def _locked(path: str) -> int:
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
        os.close(descriptor)  # who held it has removed it meanwhile
