# SPDX-License-Identifier: Apache-2.0
"""The handshake of Fluent Forward: each side shows that it knows the key, and neither says it.

["HELO", {"nonce": N, "auth": A, "keepalive": BOOL}]             the other side begins
["PING", NAME, SALT, H(SALT NAME N KEY), USER, H(A USER PASSWORD)]
["PONG", BOOL, REASON, NAME, H(SALT NAME N KEY)]
"""

import errno
import os
from collections.abc import Mapping
from typing import NamedTuple

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.delivery.sinks.destination import Destination


class Challenge(NamedTuple):
    """What the answer's digest must be made of."""

    salt: bytes
    nonce: bytes


class Credentials(NamedTuple):
    key: str
    user: str
    password: str

    @classmethod
    def of(cls, destination: Destination) -> "Credentials | None":
        """None: it has no key.  Raises TracerError."""
        key, password, user = (
            destination.secret("shared-key"),
            destination.secret("password"),
            destination.options["user"],
        )
        if key is None and (user or password):
            hint = "give shared-key-file, too: the protocol has no users without a key"
            raise TracerError(f"output {destination.uri}: a user and no key", hint, EXIT_USAGE)
        return None if key is None else cls(key, str(user or ""), password or "")

    def greet(self, hello: Mapping[str, object]) -> tuple[list[str], Challenge]:
        """The answer to HELO's second part, and what must come back."""
        name, salt = f"oomtrace.{os.uname().nodename}", os.urandom(16).hex()
        nonce, auth = _bytes(hello.get("nonce")), _bytes(hello.get("auth"))
        wanted = Challenge(salt.encode(), nonce)
        password = _digest(auth, self.user.encode(), self.password.encode()) if auth else ""
        return ["PING", name, salt, self._of_key(wanted, name), self.user if auth else "", password], wanted

    def check(self, pong: object, wanted: Challenge) -> None:
        """Raises OSError where the other side refuses, or does not know the key itself."""
        if not isinstance(pong, list) or len(pong) != 5 or pong[0] != "PONG":
            raise OSError(errno.EPROTO, "it does not answer the handshake")
        _, is_welcome, reason, name, digest = pong
        if not is_welcome:
            raise OSError(errno.EACCES, f"it refuses the key or the user: {str(reason)[:200]!r}")
        if _bytes(digest) != self._of_key(wanted, str(name)).encode():
            raise OSError(errno.EACCES, "it does not know the shared key itself")

    def _of_key(self, wanted: Challenge, name: str) -> str:
        return _digest(wanted.salt, name.encode("utf-8", "surrogateescape"), wanted.nonce, self.key.encode())


def _digest(*parts: bytes) -> str:
    from hashlib import sha512  # loads OpenSSL, 4 MB

    return sha512(b"".join(parts)).hexdigest()


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value or "").encode("utf-8", "surrogateescape")
