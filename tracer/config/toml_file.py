# SPDX-License-Identifier: Apache-2.0
"""A configuration file (TOML) -> settings.

Each long option of ``oomtrace run`` is a key: what may be given again is an array, NAME=VALUE a table.  An output is a
URI, or a table with the URI and its options.
"""

import re
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote

from tracer.base.errors import EXIT_USAGE, TracerError, read_hint
from tracer.config.options import Options
from tracer.config.settings import SETTINGS, SettingError, make_options
from tracer.delivery.sinks.destination import display_uri

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1 << 20
_NOTATION = "see https://toml.io for the notation"
_TYPES: Mapping[str, tuple[type, str]] = {
    "flag": (bool, "true or false"),
    "number": (int, "a number"),
    "text": (str, "a text"),
    "list": (list, "an array of texts"),
    "table": (dict, "a table of texts"),
    "tables": (dict, "a table of texts, or of arrays of texts"),
}


class ConfigFile:
    """A file that was read; where something stands in it is known.

    Raises TracerError where it cannot be read; with exit code 2, and the line's number, where it is no TOML, or has
    what is no setting.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                self._text = file.read(MAX_BYTES).decode()
            found = tomllib.loads(self._text)
        except OSError as error:
            raise TracerError(f"cannot read {path} ({error.strerror})", read_hint(error)) from error
        except UnicodeDecodeError as error:
            raise TracerError(f"{path} is no UTF-8", "write it as TOML in UTF-8", EXIT_USAGE) from error
        except tomllib.TOMLDecodeError as error:
            where = re.search(r"at line (\d+)", str(error))
            said = str(error).partition(" (at ")[0]
            raise self._wrong(said, _NOTATION, int(where[1]) if where else None) from error
        except RecursionError as error:
            raise self._wrong("it is nested too deeply", _NOTATION, None) from error
        except ValueError as error:  # a number of thousands of digits
            raise self._wrong("it has a number that is none", _NOTATION, None) from error
        self.settings = {name: self._setting(name, value) for name, value in found.items()}

    def options(self, given: Mapping[str, Any], arguments: tuple[str, ...] = ()) -> Options:
        """What the daemon is told: by ``given``, otherwise by the file.

        Raises SettingError (exit code 2) where something is wrong; it tells the line if it is in the file.
        """
        try:
            return make_options({**self.settings, **given}, arguments, self.path)
        except SettingError as error:
            if error.name in given or error.name not in self.settings:
                raise
            raise self._wrong(error.message, error.hint, self._line(error.name, error.message)) from error

    def _setting(self, name: str, value: Any) -> Any:
        line = self._line(name)
        if name not in SETTINGS:
            near = get_close_matches(name, SETTINGS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SETTINGS)}"
            raise self._wrong(f"unknown setting {name!r}", hint, line)
        kind = SETTINGS[name].kind
        wanted, words = _TYPES[kind]
        if name == "output":
            return [
                self._output(each, number) for number, each in enumerate(value if isinstance(value, list) else [value])
            ]
        is_right = isinstance(value, wanted) and (kind != "number" or not isinstance(value, bool))
        if kind == "list":
            is_right = is_right and all(isinstance(each, str) for each in value)
        if not is_right:
            raise self._wrong(f"{name} must be {words}", f"see: oomtrace run --help, --{name}", line)
        if kind in ("table", "tables"):
            return [pair for key, each in value.items() for pair in self._pairs(name, key, each, kind == "tables")]
        return value

    def _pairs(self, name: str, key: str, value: Any, may_be_several: bool) -> list[tuple[str, str]]:
        several = value if may_be_several and isinstance(value, list) else [value]
        if not all(isinstance(each, str) for each in several):
            raise self._wrong(
                f"{name}.{key} must be a text",
                f"see: oomtrace run --help, --{name}",
                self._line(key) or self._line(name),
            )
        if not several:
            raise self._wrong(
                f"{name}.{key} is empty", "leave it out, or name a pattern", self._line(key) or self._line(name)
            )
        return [(key, each) for each in several]

    def _output(self, value: Any, number: int) -> str:
        """The URI, options and all."""
        if isinstance(value, str):
            return value
        uri = value.get("uri") if isinstance(value, dict) else None
        if not isinstance(uri, str):
            hint = 'write uri = "SCHEME:..." below [[output]]'
            raise self._wrong("an output has no uri", hint, self._line("output", nth=number))
        pairs = []
        for name, each in value.items():
            if name == "uri":
                continue
            if isinstance(each, list) and all(isinstance(item, str) for item in each):
                text = ",".join(each)
            elif isinstance(each, bool):
                text = "yes" if each else "no"
            elif isinstance(each, str | int):
                text = str(each)
            else:
                what = f"{name} of output {display_uri(uri)} must be a text or a number"
                raise self._wrong(what, "write one", self._line(name) or self._line("output", nth=number))
            pairs.append(f"{quote(name)}={quote(text, safe='/:,@')}")
        return f"{uri}{'&' if '?' in uri else '?'}{'&'.join(pairs)}" if pairs else uri

    def _line(self, name: str, message: str = "", nth: int = 0) -> int | None:
        """Where a setting stands, the ``nth`` of that name; below that the line that has most words of the message."""
        quoted = re.escape(name)
        pattern = rf"\s*(\[\[?\s*[\"']?{quoted}[\"']?\s*\]|[\"']?{quoted}[\"']?\s*=)"
        lines = self._text.splitlines()
        found = [number for number, line in enumerate(lines, 1) if re.match(pattern, line)]
        if not found:
            return None
        words = set(re.findall(r"[^\s'\"=:&?,]{3,}", message)) - {name}
        below = range(found[0], len(lines) + 1)
        nearest = max(below, key=lambda number: sum(word in lines[number - 1] for word in words))
        return nearest if message else found[min(nth, len(found) - 1)]

    def _wrong(self, what: str, hint: str, line: int | None) -> TracerError:
        where = self.path if line is None else f"{self.path}, line {line}"
        return TracerError(f"{where}: {what}", hint, EXIT_USAGE)
