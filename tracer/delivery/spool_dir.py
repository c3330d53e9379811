# SPDX-License-Identifier: Apache-2.0
"""The folder that an output has to itself below the one that ``--state`` names, root's alone."""

import errno
import fcntl
import os
import re
from contextlib import suppress

from tracer.base.errors import TracerError


def open_spool_dir(state: str, uri: str) -> tuple[str, int]:
    """Path and descriptor of an output's folder below ``state``; both are made if need be, and nobody else uses it now.

    Raises TracerError.
    """
    path = os.path.join(state, f"{uri.partition(':')[0]}-{fnv1a(uri.encode()):016x}")
    try:
        for folder in (state, path):
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
        descriptor = _open_own(state, path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise TracerError(f"{state} or {path} is no folder", "name one that is: links are not followed") from error
        raise TracerError(f"cannot use {path} ({error.strerror})", "name another folder with --state") from error
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
        raise TracerError(f"{path} is in use by another oomtrace", "name another folder with --state") from error
    except OSError:
        pass  # a full disk: it does without
    return path, descriptor


def _open_own(state: str, path: str) -> int:
    """Raises OSError; TracerError where a folder is somebody else's, who could put there what he likes."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    base = os.open(state, flags)
    try:
        descriptor = os.open(os.path.basename(path), flags, dir_fd=base)
        for folder, opened in ((state, base), (path, descriptor)):
            if os.fstat(opened).st_uid != os.geteuid():
                os.close(descriptor)
                raise TracerError(f"{folder} belongs to another user", "name a folder of one's own with --state")
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(base)
    return descriptor


def redact_uri(uri: str) -> str:
    """The URI for everybody's eyes: of a network's only scheme and host, as tokens stand in paths and queries, too."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return f"{scheme}://{authority.rpartition('@')[2]}"


def fnv1a(data: bytes) -> int:
    """FNV-1a, 64 bits: enough for a name, where hashlib would load OpenSSL, 4 MB."""
    digest = 0xCBF29CE484222325
    for byte in data:
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return digest
