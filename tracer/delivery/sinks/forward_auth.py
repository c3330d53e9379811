# SPDX-License-Identifier: Apache-2.0
"""The handshake of Fluent Forward: each side proves that it knows the shared key, without sending it.

["HELO", {"nonce": N, "auth": A, "keepalive": BOOL}]             the server begins
["PING", NAME, SALT, H(SALT NAME N KEY), USER, H(A USER PASSWORD)]
["PONG", BOOL, REASON, NAME, H(SALT NAME N KEY)]

H is SHA-512, in hexadecimal.
"""

import errno
import os
from collections.abc import Mapping
from typing import NamedTuple

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.delivery.sinks.destination import Destination


class Challenge(NamedTuple):
    """Parts of the digest that the server must return."""

    salt: bytes
    nonce: bytes


class Credentials(NamedTuple):
    key: str
    user: str
    password: str

    @classmethod
    def of(cls, destination: Destination) -> "Credentials | None":
        """The credentials of an output, None without a key.  Raises TracerError."""
        key, password = destination.secret("shared-key"), destination.secret("password")
        user = destination.options["user"]
        if key is None and (user or password):
            hint = "set shared-key-file as well: the protocol has no users without a key"
            raise TracerError(f"output {destination.uri}: user without a key", hint, EXIT_USAGE)
        return None if key is None else cls(key, str(user or ""), password or "")

    def make_ping(self, hello: Mapping[str, object]) -> tuple[list[str], Challenge]:
        """The answer to the second part of HELO, and what PONG must prove."""
        name, salt = f"oomtrace.{os.uname().nodename}", os.urandom(16).hex()
        nonce, auth = _to_bytes(hello.get("nonce")), _to_bytes(hello.get("auth"))
        challenge = Challenge(salt.encode(), nonce)
        password = _digest(auth, self.user.encode(), self.password.encode()) if auth else ""
        return ["PING", name, salt, self._digest_key(challenge, name), self.user if auth else "", password], challenge

    def check_pong(self, pong: object, challenge: Challenge) -> None:
        """Raises OSError if the server rejects the credentials, or does not know the key."""
        if not isinstance(pong, list) or len(pong) != 5 or pong[0] != "PONG":
            raise OSError(errno.EPROTO, "the server did not complete the handshake")
        _, is_accepted, reason, name, digest = pong
        if not is_accepted:
            raise OSError(errno.EACCES, f"the server rejected the key or the user: {str(reason)[:200]!r}")
        if _to_bytes(digest) != self._digest_key(challenge, str(name)).encode():
            raise OSError(errno.EACCES, "the server does not know the shared key")

    def _digest_key(self, challenge: Challenge, name: str) -> str:
        return _digest(challenge.salt, name.encode("utf-8", "surrogateescape"), challenge.nonce, self.key.encode())


def _digest(*parts: bytes) -> str:
    from hashlib import sha512  # loads OpenSSL, 4 MB

    return sha512(b"".join(parts)).hexdigest()


def _to_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value or "").encode("utf-8", "surrogateescape")
