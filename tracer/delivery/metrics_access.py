# SPDX-License-Identifier: Apache-2.0
"""Who may read the metrics port: TLS, and a bearer token or a user's password, by the names that Prometheus has.

HOST:PORT?cert-file=PATH&key-file=PATH[&client-ca-file=PATH]    exporter-toolkit's tls_server_config
HOST:PORT?token-file=PATH                                       a scrape's authorization
HOST:PORT?user=NAME&password-file=PATH                          a scrape's basic_auth
"""

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.delivery.metrics_server import Request, Response
from tracer.delivery.sinks.destination import Destination, Option, UriForm, is_utf8, unquote
from tracer.delivery.sinks.tls import ReloadingContext, no_password

if TYPE_CHECKING:
    import ssl

OPTIONS: Mapping[str, Option] = {
    "cert-file": Option("Certificate of the port, PEM: with it the port speaks TLS alone.", None, "path"),
    "key-file": Option("Its key, PEM.", None, "path"),
    "client-ca-file": Option("Clients have to show a certificate of one of these, PEM.", None, "path"),
    "token": Option("What a client gives as `Authorization: Bearer`.", None, "secret"),
    "user": Option("Or its user's name.", None),
    "password": Option("And password.", None, "secret"),
}
_FORM = UriForm("HOST:PORT", "counts for Prometheus", OPTIONS)
_HINT = "see docs/metrics.md, Access"
_LOOPBACK = ("127.", "[::1]:", "localhost:")


class Access:
    """What a port asks of its clients, by its options (``OPTION=VALUE&...``).

    Raises TracerError (exit code 2) where one is wrong, or they contradict each other.
    """

    def __init__(self, address: str, query: str) -> None:
        self._address = address
        given = self._read(query)
        values = {name: option.default for name, option in OPTIONS.items()}
        for name, text in given.items():
            secret, _, source = name.rpartition("-")
            if source in ("file", "env") and secret in OPTIONS and OPTIONS[secret].kind == "secret":
                self._path(name, text, is_path=source == "file")
                values[secret] = f"{source}:{text}"
            elif name in OPTIONS and OPTIONS[name].kind == "secret":
                raise self._wrong(f"{name} may not stand there", f"give {name}-file=PATH or {name}-env=VARIABLE")
            elif name in OPTIONS:
                self._path(name, text, is_path=OPTIONS[name].kind == "path")
                values[name] = text
            else:
                names = [f"{name}-file" if option.kind == "secret" else name for name, option in OPTIONS.items()]
                raise self._wrong(f"has no option {name!r}", f"there are {', '.join(names)}")
        self._destination = Destination("metrics", address, values, _FORM)
        for one, other in (("cert-file", "key-file"), ("key-file", "cert-file"), ("client-ca-file", "cert-file"),
                           ("user", "password"), ("password", "user")):  # fmt: skip
            if values[one] and not values[other]:
                name = f"{other}-file" if OPTIONS[other].kind == "secret" else other
                raise self._wrong(f"{one} needs {name}", _HINT)
        if ":" in str(values["user"] or ""):
            raise self._wrong("a user's name has no colon", _HINT)

    @property
    def has_tls(self) -> bool:
        return bool(self._destination.options["cert-file"])

    @property
    def asks_for_secret(self) -> bool:
        return bool(self._destination.options["token"] or self._destination.options["user"])

    @property
    def shows_secret(self) -> bool:
        """Whether a secret goes over a network for everybody to read."""
        return self.asks_for_secret and not self.has_tls and not self._address.startswith(_LOOPBACK)

    def description(self) -> str:
        """For people: what is asked for."""
        options = self._destination.options
        asked = ["TLS"] if self.has_tls else []
        asked += ["client certificate"] if options["client-ca-file"] else []
        asked += ["token"] if options["token"] else []
        asked += ["password"] if options["user"] else []
        return ", ".join(asked) or "open to all who reach it"

    def check(self) -> None:
        """Raises TracerError where a file cannot be used."""
        if self.has_tls:
            self._context()
        self._secrets()

    def contexts(self) -> ReloadingContext | None:
        """The TLS of the next connection; None: without."""
        if not self.has_tls:
            return None
        names = ("cert-file", "key-file", "client-ca-file")
        return ReloadingContext(
            [str(self._destination.options[name]) for name in names if self._destination.options[name]], self._context
        )

    def refusal(self, request: Request) -> Response | None:
        """The answer to who may not read; None: he may.

        Raises TracerError where the secret cannot be read.
        """
        secrets = self._secrets()
        if not secrets:
            return None
        import hmac  # takes 4 MB, of those who ask for something

        given = _given(request.headers.get("authorization", ""))
        # Each is compared, in constant time: how long it takes tells nothing.
        if sum([hmac.compare_digest(given, secret) for secret in secrets]):
            return None
        challenge = "Bearer" if self._destination.options["token"] else 'Basic realm="oomtrace"'
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("WWW-Authenticate", challenge)]
        return Response("401 Unauthorized", headers, b"401 Unauthorized\n")

    def _secrets(self) -> list[bytes]:
        """What clients may give, as `_given` has it, read anew: whoever changes a token restarts nothing."""
        secrets = []
        for name, prefix in (("token", "bearer "), ("password", f"basic {self._destination.options['user']}:")):
            secret = self._destination.secret(name)
            if secret is None:
                continue
            if not secret:
                raise TracerError(f"the {name} of metrics {self._address} is empty", "write one into its file")
            secrets.append((prefix + secret).encode())
        return secrets

    def _context(self) -> "ssl.SSLContext":
        import ssl  # takes 5 MB, of those who want TLS

        names = ("cert-file", "key-file", "client-ca-file")
        cert_file, key_file, client_ca_file = (str(self._destination.options[name] or "") for name in names)
        try:
            made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            made.minimum_version = ssl.TLSVersion.TLSv1_2
            made.load_cert_chain(cert_file, key_file, password=no_password)
            if client_ca_file:
                made.load_verify_locations(client_ca_file)
                made.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:
            files = ", ".join(filter(None, (cert_file, key_file, client_ca_file)))
            reason = getattr(error, "strerror", None) or error
            hint = "PEM files are needed, the key without a password"
            raise TracerError(f"metrics {self._address}: cannot use {files} ({reason})", hint) from error
        return made

    def _read(self, query: str) -> dict[str, str]:
        given = {}
        for pair in filter(None, query.split("&")):
            name, equals, value = map(unquote, pair.partition("="))
            if not equals:  # half of a secret, perhaps
                raise self._wrong("an option has no value", "write ?OPTION=VALUE&...")
            if "\0" in name + value or not is_utf8(name + value):
                raise self._wrong("an option is no text", "write it in UTF-8, without NUL bytes")
            given[name] = value
        return given

    def _path(self, name: str, text: str, *, is_path: bool) -> None:
        if not text:
            raise self._wrong(f"{name} is empty", _HINT)
        if is_path and not text.startswith("/"):
            raise self._wrong(f"{name}={text} is no absolute path", "begin it with /")

    def _wrong(self, what: str, hint: str) -> TracerError:
        return TracerError(f"metrics {self._address}: {what}", hint, EXIT_USAGE)


def _given(authorization: str) -> bytes:
    """A scheme in lower case, and what was given, decoded; whatever else comes matches nothing."""
    scheme, _, credentials = authorization.partition(" ")
    scheme, raw = scheme.lower(), credentials.strip().encode("latin-1", "replace")
    if scheme == "basic":
        try:
            raw = base64.b64decode(raw, validate=True)
        except binascii.Error:
            return b""
    return f"{scheme} ".encode("latin-1", "replace") + raw
