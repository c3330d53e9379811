# SPDX-License-Identifier: Apache-2.0
"""The URI of an output: destination and options.

    SCHEME[:ADDRESS][?OPTION=VALUE&...]     address and values may be percent-encoded

Each sink's module has ``FORMS``, which define its URIs; the tables in docs/destinations.md are generated from them.
"""

import os
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.base.log import warn
from tracer.base.printable import printable
from tracer.delivery.spool_dir import redact_uri

OptionValue = str | int | float | bool | None
OptionKind = Literal["text", "count", "bytes", "seconds", "flag", "path", "secret", "list"]

_UNITS: dict[str, dict[str, int]] = {
    "bytes": {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30},
    "seconds": {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400},
}
_LONGEST_S = 3650 * 86400
SECRET_MAX_BYTES = 64 << 10
LOCAL = frozenset({"stdout", "file", "journald", "syslog+unix", "forward+unix"})
"""Schemes of outputs on this host, whose addresses contain no secrets."""
_LABEL_MAX = 63
_AUTHORITY = r"(\[[\w:.%]+\]|[\w.-]+)(:\d{1,5})?(,(\[[\w:.%]+\]|[\w.-]+)(:\d{1,5})?)*"
_reported_readable: set[str] = set()
"""Files with secrets for which a warning was written."""


class Option(NamedTuple):
    """An option of an output."""

    meaning: str
    default: OptionValue = None
    kind: OptionKind | tuple[str, ...] = "text"
    """A tuple contains all valid values.  A ``secret`` named X is set by X-file or X-env, never by X."""
    least: int = 0
    """Smallest valid number."""


class UriForm(NamedTuple):
    """The form of a sink's URIs."""

    uri: str
    """``syslog+tcp://HOST[:PORT]``"""
    meaning: str
    options: Mapping[str, Option] = {}
    extra: str | None = None
    """The extra of oomtrace that it requires."""
    styled: bool = True
    """Whether it takes JSON lines of any style; otherwise it converts those of style ``nested``."""


COMMON: Mapping[str, Option] = {
    "name": Option("Distinguishes outputs to the same destination, also in the name of the spool."),
    "style": Option("Names and order of the fields.", "nested", ("nested", "flat", "ecs", "otel")),
    "types": Option("Types of records to send (`oom_kill,oom_exit`); by default all.", None, "list"),
    "spool-bytes": Option("Maximum size of the spool on disk.", 64 << 20, "bytes"),
}
"""Options of every output; ``style`` only if the form is styled."""


class Destination(NamedTuple):
    """A valid URI."""

    scheme: str
    address: str
    """The part after the scheme's colon."""
    options: Mapping[str, OptionValue]
    """All options, with defaults; the value of a secret is ``file:PATH`` or ``env:NAME``."""
    form: UriForm

    @property
    def uri(self) -> str:
        """The URI without options.  It may contain secrets: `display_uri` removes them."""
        name = f"#{self.options['name']}" if self.options["name"] else ""
        return (f"{self.scheme}:{self.address}" if self.address else self.scheme) + name

    def host_port(self, default_port: int) -> tuple[str, int]:
        """Host and port of ``//HOST[:PORT]...``; an IPv6 address is in brackets.

        Raises TracerError.
        """
        authority = re.split(r"[/?#]", self.address.removeprefix("//"), maxsplit=1)[0]
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]]+))(?::(\d{1,5}))?", authority)
        if not self.address.startswith("//") or match is None or int(match[3] or 1) not in range(1, 65536):
            raise _error(self.uri, "missing or invalid host", f"write {self.form.uri}")
        if not is_host(match[1] or match[2]):
            raise _error(self.uri, "invalid host name", "use labels of 1 to 63 characters, without spaces")
        return match[1] or match[2], int(match[3] or default_port)

    @property
    def path(self) -> str:
        """The part after the host: ``/loki/api/v1/push``; without a host, the whole address."""
        if not self.address.startswith("//"):
            return self.address
        _, slash, path = self.address[2:].partition("/")
        return slash + path

    def secret(self, name: str) -> str | None:
        """The current value of a secret; None if it is not configured.

        Raises TracerError if it cannot be read.
        """
        source, _, place = str(self.options.get(name) or "").partition(":")
        if not source:
            return None
        if source == "env":
            value = os.environ.get(place)
            if value is None:
                raise TracerError(f"{place} is not in the environment", f"set it, or use {name}-file")
            return value
        try:
            with open(place, "rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o007 and place not in _reported_readable:
                    _reported_readable.add(place)
                    warn(f"{place} contains a secret and is readable by all users; restrict its mode")
                return file.read(SECRET_MAX_BYTES).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise TracerError(f"cannot read {place} ({reason})", f"{self.scheme} needs its {name}") from error


def display_uri(text: str) -> str:
    """A URI, valid or not, for messages: printable, without options and without anything that may be a secret."""
    uri = text.partition("?")[0]
    scheme, colon, address = uri.partition(":")
    if scheme in LOCAL or re.match("/[^/@]+(/|$)", uri):  # a path without a scheme
        return printable(uri)
    if not address.startswith("//"):  # not the address of a network
        word = re.split("[^A-Za-z0-9+.-]", scheme, maxsplit=1)[0]
        return uri if word == uri else f"{word}{colon if word == scheme else ''}..."
    host = redact_uri(uri).partition("://")[2]
    # The first part of "user:password" with a slash in the password looks like host and port.
    return f"{printable(scheme)}://{host if re.fullmatch(_AUTHORITY, host) else '...'}"


def is_host(name: str) -> bool:
    """Whether a resolver accepts the name; also for an address."""
    labels = name.removesuffix(".").split(".")
    return name.isprintable() and " " not in name and all(0 < len(label) <= _LABEL_MAX for label in labels)


def unquote(text: str) -> str:
    """Percent-decode.  urllib's function would take 300 KB of memory with its imports."""
    data = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), os.fsencode(text))
    return os.fsdecode(data)


def split_uri(text: str) -> tuple[str, str, dict[str, str]]:
    """Scheme, address and options of a URI, decoded.

    Raises TracerError (exit code 2) if an option has no value, or a part is not text.
    """
    before, _, query = text.partition("?")
    scheme, _, address = before.partition(":")
    options = {}
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.partition("=")
        if not equals:
            # The text may be part of a secret, unless it looks like the name of an option.
            option = f"option {name!r}" if re.fullmatch("[a-z-]{1,15}", name) else "an option"
            raise _error(text, f"{option} has no value", "write ?OPTION=VALUE&OPTION=VALUE")
        options[unquote(name)] = unquote(value)
    address = unquote(address)
    for part in (scheme, address, *options, *options.values()):
        if "\0" in part or not is_utf8(part):
            raise _error(text, "not text", "write UTF-8 without NUL bytes, also after percent-decoding")
    return scheme, address, options


def build_destination(scheme: str, address: str, given: Mapping[str, str], form: UriForm) -> Destination:
    """Check the given options, and add the defaults of the others.

    Raises TracerError (exit code 2) if one is unknown or invalid.
    """
    options = {name: option for name, option in COMMON.items() if name != "style" or form.styled} | dict(form.options)
    values: dict[str, OptionValue] = {name: option.default for name, option in options.items()}
    for name, text in given.items():
        secret, _, source = name.rpartition("-")
        if source in ("file", "env") and secret in options and options[secret].kind == "secret":
            values[secret] = f"{source}:{text}"
        elif name in options and options[name].kind == "secret":
            raise _error(scheme, f"{name} must not be in a URI", f"use {name}-file=PATH or {name}-env=VARIABLE")
        elif name in options:
            values[name] = _parse_value(scheme, name, options[name], text)
        else:
            names = [f"{other}-file" if option.kind == "secret" else other for other, option in sorted(options.items())]
            raise _error(scheme, f"unknown option {name!r}", f"the options are {', '.join(names)}")
    values.setdefault("style", "nested")
    return Destination(scheme, address, values, form)


def _parse_value(scheme: str, name: str, option: Option, text: str) -> OptionValue:
    kind = option.kind
    if isinstance(kind, tuple):
        if text not in kind:
            raise _error(scheme, f"invalid {name}={text}", f"use one of {', '.join(kind)}")
        return text
    if kind == "flag":
        if text not in ("yes", "no"):
            raise _error(scheme, f"invalid {name}={text}", "use yes or no")
        return text == "yes"
    if kind in ("count", "bytes", "seconds"):
        units = _UNITS.get(kind, {"": 1})
        match = re.fullmatch(rf"(\d{{1,12}})({'|'.join(units)})", text)
        if match is None:
            unit_names = ", ".join(unit for unit in units if unit)
            hint = f"use digits and one of {unit_names}" if unit_names else "use digits"
            raise _error(scheme, f"{name}={text} is not a number", hint)
        if int(match[1]) < option.least:
            raise _error(scheme, f"{name}={text} is too small", f"use {option.least} or more")
        number = int(match[1]) * units[match[2]]
        if kind == "seconds" and number > _LONGEST_S:
            raise _error(scheme, f"{name}={text} is too long", "use ten years at most")
        return number
    if kind == "path" and not text.startswith("/"):
        raise _error(scheme, f"{name}={text} is not an absolute path", "begin it with /")
    return text


def is_utf8(text: str) -> bool:
    """Whether the text can be encoded: command-line arguments may contain other bytes, as surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _error(uri: str, what: str, hint: str) -> TracerError:
    return TracerError(f"output {display_uri(uri)}: {what}", hint, EXIT_USAGE)
