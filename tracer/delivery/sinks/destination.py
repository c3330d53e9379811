# SPDX-License-Identifier: Apache-2.0
"""An output's URI: what it names, and its options.

    SCHEME[:ADDRESS][?OPTION=VALUE&...]     in address and values %XX is the byte of that number

Each module of a kind of output has ``FORMS``, which say what may stand there; the tables in docs/destinations.md are
made of them.
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
"""Schemes of outputs on this host, whose addresses have nothing secret."""
_LABEL_MAX = 63
_AUTHORITY = r"(\[[\w:.%]+\]|[\w.-]+)(:\d{1,5})?(,(\[[\w:.%]+\]|[\w.-]+)(:\d{1,5})?)*"
_told_readable: set[str] = set()
"""Files with secrets that were said to be readable."""


class Option(NamedTuple):
    """What may be said about an output."""

    meaning: str
    default: OptionValue = None
    kind: OptionKind | tuple[str, ...] = "text"
    """A tuple has all values that there are.  A ``secret`` called X is told by X-file or X-env, never by itself."""
    least: int = 0
    """Of numbers."""


class UriForm(NamedTuple):
    """A kind of output, as its URI is written."""

    uri: str
    """``syslog+tcp://HOST[:PORT]``"""
    meaning: str
    options: Mapping[str, Option] = {}
    extra: str | None = None
    """What must be installed for it, by the name of oomtrace's extra."""
    styled: bool = True
    """Whether it takes lines of JSON, in any style; otherwise it makes something of the nested ones."""


COMMON: Mapping[str, Option] = {
    "name": Option("Distinguishes outputs to the same destination, also in the name of the spool."),
    "style": Option("Names and order of the fields.", "nested", ("nested", "flat", "ecs", "otel")),
    "types": Option("Types of records to send (`oom_kill,oom_exit`); by default all.", None, "list"),
    "spool-bytes": Option("Maximum size of the spool on disk.", 64 << 20, "bytes"),
}
"""Options of every output; ``style`` of those that take JSON."""


class Destination(NamedTuple):
    """A URI, checked."""

    scheme: str
    address: str
    """What stands behind the scheme's colon."""
    options: Mapping[str, OptionValue]
    """Of all that there are; a secret's own name leads to ``file:PATH`` or ``env:NAME``."""
    form: UriForm

    @property
    def uri(self) -> str:
        """Without options: where it goes.  May tell more than everybody should read (`shown`)."""
        name = f"#{self.options['name']}" if self.options["name"] else ""
        return (f"{self.scheme}:{self.address}" if self.address else self.scheme) + name

    def host_port(self, default_port: int) -> tuple[str, int]:
        """Of ``//HOST[:PORT]...``; [::1] is an IPv6 address.

        Raises TracerError.
        """
        authority = re.split(r"[/?#]", self.address.removeprefix("//"), maxsplit=1)[0]
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]]+))(?::(\d{1,5}))?", authority)
        if not self.address.startswith("//") or match is None or int(match[3] or 1) not in range(1, 65536):
            raise _wrong(self.uri, "needs a host", f"write {self.form.uri}")
        if not is_host(match[1] or match[2]):
            raise _wrong(self.uri, "its host is no name", "it has no spaces, and 63 characters from dot to dot at most")
        return match[1] or match[2], int(match[3] or default_port)

    @property
    def path(self) -> str:
        """Behind the host: ``/loki/api/v1/push``; without a host all of the address."""
        if not self.address.startswith("//"):
            return self.address
        _, slash, path = self.address[2:].partition("/")
        return slash + path

    def secret(self, name: str) -> str | None:
        """The value of a secret, read anew; None: there is none.

        Raises TracerError where it cannot be read.
        """
        where, _, what = str(self.options.get(name) or "").partition(":")
        if not where:
            return None
        if where == "env":
            value = os.environ.get(what)
            if value is None:
                raise TracerError(f"the environment has no {what}", f"set it, or give {name}-file to {self.scheme}")
            return value
        try:
            with open(what, "rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o007 and what not in _told_readable:
                    _told_readable.add(what)
                    warn(f"{what} holds a secret, and everybody may read it")
                return file.read(SECRET_MAX_BYTES).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise TracerError(f"cannot read {what} ({reason})", f"{self.scheme} needs its {name} from there") from error


def display_uri(text: str) -> str:
    """A URI, right or wrong, for everybody's eyes: neither options nor what may be a secret, and fit for a terminal."""
    uri = text.partition("?")[0]
    scheme, colon, address = uri.partition(":")
    if scheme in LOCAL or re.match("/[^/@]+(/|$)", uri):  # a path: its scheme was forgotten
        return printable(uri)
    if not address.startswith("//"):  # whatever it is, it is no network's address
        word = re.split("[^A-Za-z0-9+.-]", scheme, maxsplit=1)[0]
        return uri if word == uri else f"{word}{colon if word == scheme else ''}..."
    host = redact_uri(uri).partition("://")[2]
    # Of a name and a password with a slash in it half would look like host and port.
    return f"{printable(scheme)}://{host if re.fullmatch(_AUTHORITY, host) else '...'}"


def is_host(name: str) -> bool:
    """Whether a resolver can be asked for it; also of an address."""
    labels = name.removesuffix(".").split(".")
    return name.isprintable() and " " not in name and all(0 < len(label) <= _LABEL_MAX for label in labels)


def unquote(text: str) -> str:
    """With the bytes that %XX stands for.  Not urllib's, which takes 300 KB with what it imports."""
    data = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), os.fsencode(text))
    return os.fsdecode(data)


def split_uri(text: str) -> tuple[str, str, dict[str, str]]:
    """Scheme, address and options of a URI, decoded, nothing checked but that options are pairs.

    Raises TracerError (exit code 2).
    """
    before, _, query = text.partition("?")
    scheme, _, address = before.partition(":")
    options = {}
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.partition("=")
        if not equals:
            # What stands there may be half of a secret; names of options are short.
            told = f"option {name!r}" if re.fullmatch("[a-z-]{1,15}", name) else "an option"
            raise _wrong(text, f"{told} has no value", "write OPTION=VALUE, & between them, ? before them")
        options[unquote(name)] = unquote(value)
    address = unquote(address)
    for part in (scheme, address, *options, *options.values()):
        if "\0" in part or not is_utf8(part):
            raise _wrong(
                text, "it is no text", "write it in UTF-8, without NUL bytes; the same holds for what %XX means"
            )
    return scheme, address, options


def build_destination(scheme: str, address: str, given: Mapping[str, str], form: UriForm) -> Destination:
    """Check the options, and fill in those that are not given.

    Raises TracerError (exit code 2) where one is unknown or wrong.
    """
    known = {name: option for name, option in COMMON.items() if name != "style" or form.styled} | dict(form.options)
    values: dict[str, OptionValue] = {name: option.default for name, option in known.items()}
    for name, text in given.items():
        secret, _, source = name.rpartition("-")
        if source in ("file", "env") and secret in known and known[secret].kind == "secret":
            values[secret] = f"{source}:{text}"
        elif name in known and known[name].kind == "secret":
            raise _wrong(scheme, f"{name} may not stand in a URI", f"give {name}-file=PATH or {name}-env=VARIABLE")
        elif name in known:
            values[name] = _value(scheme, name, known[name], text)
        else:
            there = [f"{other}-file" if option.kind == "secret" else other for other, option in sorted(known.items())]
            raise _wrong(scheme, f"has no option {name!r}", f"there are {', '.join(there)}")
    values.setdefault("style", "nested")
    return Destination(scheme, address, values, form)


def _value(scheme: str, name: str, option: Option, text: str) -> OptionValue:
    kind = option.kind
    if isinstance(kind, tuple):
        if text not in kind:
            raise _wrong(scheme, f"{name}={text} is unknown", f"use one of {', '.join(kind)}")
        return text
    if kind == "flag":
        if text not in ("yes", "no"):
            raise _wrong(scheme, f"{name}={text} is unknown", "use yes or no")
        return text == "yes"
    if kind in ("count", "bytes", "seconds"):
        units = _UNITS.get(kind, {"": 1})
        match = re.fullmatch(rf"(\d{{1,12}})({'|'.join(units)})", text)
        if match is None:
            told = ", ".join(unit for unit in units if unit)
            raise _wrong(scheme, f"{name}={text} is no number", f"digits, and one of {told}" if told else "use digits")
        if int(match[1]) < option.least:
            raise _wrong(scheme, f"{name}={text} is too small", f"it is {option.least} at least")
        number = int(match[1]) * units[match[2]]
        if kind == "seconds" and number > _LONGEST_S:
            raise _wrong(scheme, f"{name}={text} is too long", "it is ten years at most")
        return number
    if kind == "path" and not text.startswith("/"):
        raise _wrong(scheme, f"{name}={text} is no absolute path", "begin it with /")
    return text


def is_utf8(text: str) -> bool:
    """Whether it can be written at all: arguments may have bytes that are none."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _wrong(uri: str, what: str, hint: str) -> TracerError:
    return TracerError(f"output {display_uri(uri)}: {what}", hint, EXIT_USAGE)
