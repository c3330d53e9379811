# SPDX-License-Identifier: Apache-2.0
"""Access control of the metrics port: TLS, and a bearer token or a password, with the option names of Prometheus.

HOST:PORT?cert-file=PATH&key-file=PATH[&client-ca-file=PATH]    tls_server_config of exporter-toolkit
HOST:PORT?token-file=PATH                                       authorization of a scrape_config
HOST:PORT?user=NAME&password-file=PATH                          basic_auth of a scrape_config
"""

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.delivery.metrics_server import Request, Response
from tracer.delivery.sinks.destination import Destination, Option, OptionValue, UriForm, is_utf8, unquote
from tracer.delivery.sinks.tls import ReloadingContext, no_password

if TYPE_CHECKING:
    import ssl

OPTIONS: Mapping[str, Option] = {
    "cert-file": Option("Certificate of the port, PEM; the port then accepts only TLS.", None, "path"),
    "key-file": Option("Key of the certificate, PEM.", None, "path"),
    "client-ca-file": Option("Authorities that client certificates must be signed by, PEM.", None, "path"),
    "token": Option("Required bearer token (`Authorization: Bearer`).", None, "secret"),
    "user": Option("Required user name (basic authentication).", None),
    "password": Option("Required password (basic authentication).", None, "secret"),
}
_FORM = UriForm("HOST:PORT", "counts for Prometheus", OPTIONS)
_HINT = "see docs/metrics.md, Access"
_LOOPBACK = ("127.", "[::1]:", "localhost:")


class Access:
    """What a port requires of its clients, from its options (``OPTION=VALUE&...``).

    Raises TracerError (exit code 2) if an option is invalid, or options contradict each other.
    """

    def __init__(self, address: str, query: str) -> None:
        self._address = address
        values = self._parse_options(query)
        self._check_combinations(values)
        self._settings = Destination("metrics", address, values, _FORM)

    def _parse_options(self, query: str) -> dict[str, OptionValue]:
        values = {name: option.default for name, option in OPTIONS.items()}
        for name, text in self._split_options(query).items():
            secret, _, source = name.rpartition("-")
            if source in ("file", "env") and secret in OPTIONS and OPTIONS[secret].kind == "secret":
                self._check_value(name, text, is_path=source == "file")
                values[secret] = f"{source}:{text}"
            elif name in OPTIONS and OPTIONS[name].kind == "secret":
                raise self._error(f"{name} must not be in the address", f"use {name}-file=PATH or {name}-env=VARIABLE")
            elif name in OPTIONS:
                self._check_value(name, text, is_path=OPTIONS[name].kind == "path")
                values[name] = text
            else:
                names = [f"{name}-file" if option.kind == "secret" else name for name, option in OPTIONS.items()]
                raise self._error(f"unknown option {name!r}", f"the options are {', '.join(names)}")
        return values

    def _check_combinations(self, values: Mapping[str, OptionValue]) -> None:
        for one, other in (("cert-file", "key-file"), ("key-file", "cert-file"), ("client-ca-file", "cert-file"),
                           ("user", "password"), ("password", "user")):  # fmt: skip
            if values[one] and not values[other]:
                name = f"{other}-file" if OPTIONS[other].kind == "secret" else other
                raise self._error(f"{one} requires {name}", _HINT)
        if ":" in str(values["user"] or ""):
            raise self._error("the user name must not contain a colon", _HINT)

    @property
    def has_tls(self) -> bool:
        return bool(self._settings.options["cert-file"])

    @property
    def requires_secret(self) -> bool:
        return bool(self._settings.options["token"] or self._settings.options["user"])

    @property
    def sends_secret_unencrypted(self) -> bool:
        """Whether clients send a secret over a network without encryption."""
        return self.requires_secret and not self.has_tls and not self._address.startswith(_LOOPBACK)

    def description(self) -> str:
        """What clients need, for messages."""
        options = self._settings.options
        required = ["TLS"] if self.has_tls else []
        required += ["client certificate"] if options["client-ca-file"] else []
        required += ["token"] if options["token"] else []
        required += ["password"] if options["user"] else []
        return ", ".join(required) or "no authentication"

    def check(self) -> None:
        """Raises TracerError if a file cannot be used."""
        if self.has_tls:
            self._make_context()
        self._read_secrets()

    def tls_context(self) -> ReloadingContext | None:
        """The TLS context of new connections; None without TLS."""
        if not self.has_tls:
            return None
        names = ("cert-file", "key-file", "client-ca-file")
        return ReloadingContext(
            [str(self._settings.options[name]) for name in names if self._settings.options[name]], self._make_context
        )

    def refusal(self, request: Request) -> Response | None:
        """The response to a request without valid credentials; None for a valid request.

        Raises TracerError if a secret cannot be read.
        """
        secrets = self._read_secrets()
        if not secrets:
            return None
        import hmac  # 4 MB of memory, only where a secret is required

        credentials = _normalize(request.headers.get("authorization", ""))
        # All are compared, in constant time, so the duration reveals nothing.
        if sum([hmac.compare_digest(credentials, secret) for secret in secrets]):
            return None
        challenge = "Bearer" if self._settings.options["token"] else 'Basic realm="oomtrace"'
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("WWW-Authenticate", challenge)]
        return Response("401 Unauthorized", headers, b"401 Unauthorized\n")

    def _read_secrets(self) -> list[bytes]:
        """Valid credentials, in the form of `_normalize`, read for each request: a new token needs no restart."""
        secrets = []
        for name, prefix in (("token", "bearer "), ("password", f"basic {self._settings.options['user']}:")):
            secret = self._settings.secret(name)
            if secret is None:
                continue
            if not secret:
                raise TracerError(f"the {name} of metrics {self._address} is empty", "write one to its file")
            secrets.append((prefix + secret).encode())
        return secrets

    def _make_context(self) -> "ssl.SSLContext":
        import ssl  # 5 MB of memory, only where TLS is used

        names = ("cert-file", "key-file", "client-ca-file")
        cert_file, key_file, client_ca_file = (str(self._settings.options[name] or "") for name in names)
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(cert_file, key_file, password=no_password)
            if client_ca_file:
                context.load_verify_locations(client_ca_file)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:
            files = ", ".join(filter(None, (cert_file, key_file, client_ca_file)))
            reason = getattr(error, "strerror", None) or error
            hint = "use PEM files, and a key without a password"
            raise TracerError(f"metrics {self._address}: cannot use {files} ({reason})", hint) from error
        return context

    def _split_options(self, query: str) -> dict[str, str]:
        options = {}
        for pair in filter(None, query.split("&")):
            name, equals, value = map(unquote, pair.partition("="))
            if not equals:  # the message must not show it: it may be part of a secret
                raise self._error("an option has no value", "write ?OPTION=VALUE&...")
            if "\0" in name + value or not is_utf8(name + value):
                raise self._error("an option is not text", "write UTF-8 without NUL bytes")
            options[name] = value
        return options

    def _check_value(self, name: str, text: str, *, is_path: bool) -> None:
        if not text:
            raise self._error(f"{name} is empty", _HINT)
        if is_path and not text.startswith("/"):
            raise self._error(f"{name}={text}: not an absolute path", "begin it with /")

    def _error(self, what: str, hint: str) -> TracerError:
        return TracerError(f"metrics {self._address}: {what}", hint, EXIT_USAGE)


def _normalize(authorization: str) -> bytes:
    """Scheme in lower case, then the decoded credentials; invalid values match nothing."""
    scheme, _, credentials = authorization.partition(" ")
    scheme, raw = scheme.lower(), credentials.strip().encode("latin-1", "replace")
    if scheme == "basic":
        try:
            raw = base64.b64decode(raw, validate=True)
        except binascii.Error:
            return b""
    return f"{scheme} ".encode("latin-1", "replace") + raw
