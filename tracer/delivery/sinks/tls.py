# SPDX-License-Identifier: Apache-2.0
"""TLS to whoever takes the lines: verified, unless the output's URI says otherwise."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tracer.base.errors import TracerError
from tracer.base.log import warn
from tracer.delivery.sinks.destination import Destination, Option

if TYPE_CHECKING:
    import ssl

OPTIONS: Mapping[str, Option] = {
    "ca-file": Option("Trusted certificates; by default the system's.", None, "path"),
    "cert-file": Option("Client certificate, PEM; a renewed file is used for the next connection.", None, "path"),
    "key-file": Option("Key of the client certificate, PEM.", None, "path"),
    "server-name": Option("Name that the server's certificate must have; by default the URI's host."),
    "verify": Option("Whether to verify the server's certificate.", True, "flag"),
}


class ReloadingContext:
    """A context of files that may change: then a new one is made.

    Raises TracerError where one of the files cannot be used.
    """

    def __init__(self, files: Sequence[str], make: "Callable[[], ssl.SSLContext]") -> None:
        self._files = files
        self._make = make
        self._seen = self._stamps()
        self._made = make()

    def current(self) -> "ssl.SSLContext":
        """For a new connection.

        Certificates end after months, and are renewed in their place; a file that cannot be used is told, and what
        was there before is used on.
        """
        seen = self._stamps()
        if seen != self._seen:
            self._seen = seen
            try:
                self._made = self._make()
            except TracerError as error:
                warn(f"{error}; what was there before is used on")
        return self._made

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        stamps: list[tuple[int, int, int] | None] = []
        for name in self._files:
            try:
                found = os.stat(name)
                stamps.append((found.st_dev, found.st_ino, found.st_mtime_ns))
            except OSError:
                stamps.append(None)
        return stamps


class ClientContext(ReloadingContext):
    """A client's, of the output's options."""

    def __init__(self, destination: Destination, protocols: Sequence[str] = ()) -> None:
        """``protocols`` for ALPN.  Raises TracerError where a file of certificates or keys cannot be used."""

        def make() -> "ssl.SSLContext":
            made = _context(destination)
            if protocols:
                made.set_alpn_protocols(list(protocols))
            return made

        names = (destination.options[name] for name in ("ca-file", "cert-file", "key-file"))
        super().__init__([str(name) for name in names if name], make)
        if not destination.options["verify"]:
            warn(f"{destination.scheme}: the other side's certificate is not checked (verify=no)")


def _context(destination: Destination) -> "ssl.SSLContext":
    import ssl  # takes 5 MB, of those who want TLS

    options = destination.options
    ca_file, cert_file, key_file = (options[name] for name in ("ca-file", "cert-file", "key-file"))
    try:
        made = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        if cert_file:
            made.load_cert_chain(str(cert_file), str(key_file) if key_file else None, password=no_password)
    except (OSError, ValueError) as error:
        files = ", ".join(str(name) for name in (ca_file, cert_file, key_file) if name) or "the system's certificates"
        reason = getattr(error, "strerror", None) or error
        hint = "PEM files are needed, the key without a password"
        raise TracerError(f"cannot use {files} ({reason})", hint) from error
    if not options["verify"]:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def server_name(destination: Destination, host: str) -> str:
    """The name that its certificate must have."""
    return str(destination.options["server-name"] or host)


def no_password() -> str:
    """For keys: OpenSSL would ask for it on the terminal."""
    raise ValueError("the key has a password")
