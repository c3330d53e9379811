# SPDX-License-Identifier: Apache-2.0
"""TLS contexts.  Servers are verified, unless the output's URI disables that."""

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
    """A context that is made again when one of its files changes.

    Raises TracerError if one of the files cannot be used.
    """

    def __init__(self, files: Sequence[str], make: "Callable[[], ssl.SSLContext]") -> None:
        self._files = files
        self._make = make
        self._stamps = self._read_stamps()
        self._context = make()

    def current(self) -> "ssl.SSLContext":
        """The context for a new connection.

        Certificates expire, and are renewed in place.  If a new file cannot be used, the previous context remains in
        use, with a warning.
        """
        stamps = self._read_stamps()
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._context = self._make()
            except TracerError as error:
                warn(f"{error}; the previous certificates remain in use")
        return self._context

    def _read_stamps(self) -> list[tuple[int, int, int] | None]:
        stamps: list[tuple[int, int, int] | None] = []
        for name in self._files:
            try:
                status = os.stat(name)
                stamps.append((status.st_dev, status.st_ino, status.st_mtime_ns))
            except OSError:
                stamps.append(None)
        return stamps


class ClientContext(ReloadingContext):
    """A client's context, from the options of an output."""

    def __init__(self, destination: Destination, protocols: Sequence[str] = ()) -> None:
        """``protocols`` for ALPN.  Raises TracerError if a file of certificates or keys cannot be used."""

        def make() -> "ssl.SSLContext":
            context = _make_context(destination)
            if protocols:
                context.set_alpn_protocols(list(protocols))
            return context

        names = (destination.options[name] for name in ("ca-file", "cert-file", "key-file"))
        super().__init__([str(name) for name in names if name], make)
        if not destination.options["verify"]:
            warn(f"{destination.scheme}: the server's certificate is not verified (verify=no)")


def _make_context(destination: Destination) -> "ssl.SSLContext":
    import ssl  # 5 MB of memory, only where TLS is used

    options = destination.options
    ca_file, cert_file, key_file = (options[name] for name in ("ca-file", "cert-file", "key-file"))
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        if cert_file:
            context.load_cert_chain(str(cert_file), str(key_file) if key_file else None, password=no_password)
    except (OSError, ValueError) as error:
        files = ", ".join(str(name) for name in (ca_file, cert_file, key_file) if name) or "the system's certificates"
        reason = getattr(error, "strerror", None) or error
        hint = "use PEM files, and a key without a password"
        raise TracerError(f"cannot use {files} ({reason})", hint) from error
    if not options["verify"]:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def server_name(destination: Destination, host: str) -> str:
    """The name that the server's certificate must have."""
    return str(destination.options["server-name"] or host)


def no_password() -> str:
    """Callback for encrypted keys; without it, OpenSSL prompts on the terminal."""
    raise ValueError("the key has a password")
