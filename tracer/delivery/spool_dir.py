# SPDX-License-Identifier: Apache-2.0
"""The directory of one output below the one that ``--state`` names; only its owner has access."""

import errno
import fcntl
import os
import re
from contextlib import suppress

from tracer.base.errors import TracerError


def open_spool_dir(state_dir: str, uri: str) -> tuple[str, int]:
    """Path and descriptor of an output's directory.  Creates and locks it; creates ``state_dir`` as well.

    Raises TracerError.
    """
    path = os.path.join(state_dir, f"{uri.partition(':')[0]}-{fnv1a(uri.encode()):016x}")
    try:
        for directory in (state_dir, path):
            with suppress(FileExistsError):
                os.mkdir(directory, 0o700)
        descriptor = _open_owned(state_dir, path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            hint = "use a directory; symbolic links are not followed"
            raise TracerError(f"{state_dir} or {path} is not a directory", hint) from error
        raise TracerError(f"cannot use {path} ({error.strerror})", "name another directory with --state") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with open(
            os.open(
                "uri", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=descriptor
            ),
            "w",
        ) as file:
            file.write(f"{redact_uri(uri)}\n")
    except BlockingIOError as error:
        os.close(descriptor)
        raise TracerError(f"{path} is in use by another oomtrace", "name another directory with --state") from error
    except OSError:
        pass  # a full disk: the file is only informative
    return path, descriptor


def _open_owned(state_dir: str, path: str) -> int:
    """Raises OSError; TracerError if a directory belongs to another user, who could place files there."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    base = os.open(state_dir, flags)
    try:
        descriptor = os.open(os.path.basename(path), flags, dir_fd=base)
        for directory, opened in ((state_dir, base), (path, descriptor)):
            if os.fstat(opened).st_uid != os.geteuid():
                os.close(descriptor)
                what = f"{directory} belongs to another user"
                raise TracerError(what, "name a directory of the user that runs oomtrace with --state")
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(base)
    return descriptor


def redact_uri(uri: str) -> str:
    """The URI without secrets.  A network's URI keeps only scheme and host, because paths and queries hold tokens."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return f"{scheme}://{authority.rpartition('@')[2]}"


def fnv1a(data: bytes) -> int:
    """FNV-1a, 64 bits: sufficient for a name; hashlib would load OpenSSL (4 MB)."""
    digest = 0xCBF29CE484222325
    for byte in data:
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return digest
