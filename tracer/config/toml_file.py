# SPDX-License-Identifier: Apache-2.0
"""Read a configuration file (TOML).

Each long option of ``oomtrace run`` is a key.  An option that may be repeated is an array, NAME=VALUE is a table.  An
output is a URI, or a table with the URI and its options.
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
_SYNTAX_HINT = "see https://toml.io for the syntax"
_TYPES: Mapping[str, tuple[type, str]] = {
    "flag": (bool, "true or false"),
    "number": (int, "a number"),
    "text": (str, "a string"),
    "list": (list, "an array of strings"),
    "table": (dict, "a table of strings"),
    "tables": (dict, "a table of strings, or of arrays of strings"),
}


class ConfigFile:
    """The settings in a file; errors name the line.

    Raises TracerError if the file cannot be read; with exit code 2, and the line number, if it is not TOML or has an
    invalid setting.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                self._text = file.read(MAX_BYTES).decode()
            values = tomllib.loads(self._text)
        except OSError as error:
            raise TracerError(f"cannot read {path} ({error.strerror})", read_hint(error)) from error
        except UnicodeDecodeError as error:
            raise TracerError(f"{path} is not UTF-8", "write TOML in UTF-8", EXIT_USAGE) from error
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"at line (\d+)", str(error))
            reason = str(error).partition(" (at ")[0]
            raise self._error(reason, _SYNTAX_HINT, int(line[1]) if line else None) from error
        except RecursionError as error:
            raise self._error("values are nested too deeply", _SYNTAX_HINT, None) from error
        except ValueError as error:  # a number of thousands of digits
            raise self._error("invalid number", _SYNTAX_HINT, None) from error
        self.settings = {name: self._parse_setting(name, value) for name, value in values.items()}

    def options(self, given: Mapping[str, Any], arguments: tuple[str, ...] = ()) -> Options:
        """Options from the file; ``given`` settings take precedence.

        Raises SettingError (exit code 2) for an invalid setting, TracerError with its line if it is in the file.
        """
        try:
            return make_options({**self.settings, **given}, arguments, self.path)
        except SettingError as error:
            if error.name in given or error.name not in self.settings:
                raise
            raise self._error(error.message, error.hint, self._find_line(error.name, error.message)) from error

    def _parse_setting(self, name: str, value: Any) -> Any:
        line = self._find_line(name)
        if name not in SETTINGS:
            similar = get_close_matches(name, SETTINGS, 1)
            hint = f"did you mean {similar[0]}?" if similar else f"the settings are {', '.join(SETTINGS)}"
            raise self._error(f"unknown setting {name!r}", hint, line)
        kind = SETTINGS[name].kind
        expected, description = _TYPES[kind]
        if name == "output":
            return [
                self._parse_output(each, number)
                for number, each in enumerate(value if isinstance(value, list) else [value])
            ]
        is_valid = isinstance(value, expected) and (kind != "number" or not isinstance(value, bool))
        if kind == "list":
            is_valid = is_valid and all(isinstance(each, str) for each in value)
        if not is_valid:
            raise self._error(f"{name} must be {description}", f"see: oomtrace run --help, --{name}", line)
        if kind in ("table", "tables"):
            return [
                pair for key, each in value.items() for pair in self._parse_pairs(name, key, each, kind == "tables")
            ]
        return value

    def _parse_pairs(self, name: str, key: str, value: Any, allows_array: bool) -> list[tuple[str, str]]:
        values = value if allows_array and isinstance(value, list) else [value]
        line = self._find_line(key) or self._find_line(name)
        if not all(isinstance(each, str) for each in values):
            raise self._error(f"{name}.{key} must be a string", f"see: oomtrace run --help, --{name}", line)
        if not values:
            raise self._error(f"{name}.{key} is empty", "remove it, or add a pattern", line)
        return [(key, each) for each in values]

    def _parse_output(self, value: Any, number: int) -> str:
        """The URI with all options."""
        if isinstance(value, str):
            return value
        uri = value.get("uri") if isinstance(value, dict) else None
        if not isinstance(uri, str):
            hint = 'write uri = "SCHEME:..." below [[output]]'
            raise self._error("an output has no uri", hint, self._find_line("output", nth=number))
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
                what = f"{name} of output {display_uri(uri)} must be a string or a number"
                line = self._find_line(name) or self._find_line("output", nth=number)
                raise self._error(what, "write a string, a number, true or false", line)
            pairs.append(f"{quote(name)}={quote(text, safe='/:,@')}")
        return f"{uri}{'&' if '?' in uri else '?'}{'&'.join(pairs)}" if pairs else uri

    def _find_line(self, name: str, message: str = "", nth: int = 0) -> int | None:
        """Line number of the ``nth`` setting of a name, or of the line below with most words of a message about it."""
        quoted = re.escape(name)
        pattern = rf"\s*(\[\[?\s*[\"']?{quoted}[\"']?\s*\]|[\"']?{quoted}[\"']?\s*=)"
        lines = self._text.splitlines()
        numbers = [number for number, line in enumerate(lines, 1) if re.match(pattern, line)]
        if not numbers:
            return None
        words = set(re.findall(r"[^\s'\"=:&?,]{3,}", message)) - {name}
        below = range(numbers[0], len(lines) + 1)
        best = max(below, key=lambda number: sum(word in lines[number - 1] for word in words))
        return best if message else numbers[min(nth, len(numbers) - 1)]

    def _error(self, what: str, hint: str, line: int | None) -> TracerError:
        where = self.path if line is None else f"{self.path}, line {line}"
        return TracerError(f"{where}: {what}", hint, EXIT_USAGE)
