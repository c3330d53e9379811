# SPDX-License-Identifier: Apache-2.0
r"""Redact the secrets in a command line.

Secrets are found in two ways.  By words: the value of an option or variable whose name ends like a secret's
(``--db-password x``), and options of certain programs (``mysql -px``), also within the script of ``sh -c``.  By text:
``token=x``, ``scheme://user:x@host``, and known shapes, anywhere.  References to secrets are kept: ``$PASSWORD``,
``--token-file=x``, ``--token=/run/x``.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.redaction.patterns import REDACTED, has_aws_key, redact_aws_secrets, redact_text, redact_value, secret_kind

_DEPTH = 3
"""Depth of nested shell scripts; deeper ones are searched by text only."""
_PAIR = re.compile(r"(-{0,2}[\w.\[\]-]{1,128})([=:]\s{0,4})(.*)", re.DOTALL)
_REST_OF_LIST = re.compile(r"[,;&](?=[\w. -]{1,32}=|\Z)")
_ASSIGNMENT_OPTIONS = frozenset({"-e", "--env", "--build-arg", "--from-literal", "--setenv"})
"""Options whose value is NAME=VALUE."""
_HEADER = ("-H", "--header")
_FLAG = re.compile(
    r"-+(?:no|(?:no|ask|prompt|show|use|enable|disable|skip|require|allow|need|print|hide|generate|rotate|is)[-_])"
)
"""Prefixes of options that have no value, or a value of yes or no."""
_WRAPPERS = frozenset({"sudo", "env", "exec", "nohup", "setsid", "time"})
"""Programs whose arguments are the command line of another program."""
_SHELL = re.compile(
    r"""(?P<operator>[;|&()<>`\n]+)|(?:[^\s"'\\;|&()<>`]|\\.|"(?:\\.|[^"\\])*"?|'[^']*'?)+""", re.DOTALL
)
_SHELL_SIGNS = re.compile(r"""[\s"'`]""")
_PORT = re.compile(r"[0-9]{1,5}(?::[0-9]{1,5})?(?:/(?:tcp|udp))?\Z")
_PROGRAM_LEN = 64
_PROGRAM = re.compile(
    r"""(?: (?P<mysql>(?:mysql|mariadb)(?!d(?:_safe)?\Z)[\w-]*|mydumper|myloader)
      | (?P<redis>(?:redis|valkey|keydb)-cli)
      | (?P<sshpass>sshpass) | (?P<curl>curl) | (?P<mongo>mongo(?![ds]\Z)\w*) | (?P<ldap>ldap[a-z]+)
      | (?P<login>login) | (?P<smb>smbclient|rpcclient) | (?P<sql>sqlcmd|bcp|tsql|mosquitto_(?:pub|sub))
      | (?P<prompting>psql|pg_\w+|createdb|dropdb|createuser|vacuumdb|reindexdb)
      | (?P<plain>ssh|scp|sftp|rsync|nc|docker)
      )\Z""",
    re.VERBOSE,
)


class _Option(NamedTuple):
    """An option that holds a secret in one program: ``-p x`` if separate, ``-px`` if attached."""

    letters: tuple[str, ...]
    separate: bool
    attached: bool
    after: str = ""
    """The secret begins after this separator: ``user:x``."""


_OPTIONS = {
    "mysql": _Option(("p",), False, True),
    "redis": _Option(("a",), True, False),
    "sshpass": _Option(("p",), True, True),
    "curl": _Option(("U", "u"), True, True, ":"),
    "mongo": _Option(("p",), True, True),
    "ldap": _Option(("w",), True, True),
    "login": _Option(("p",), True, True),
    "smb": _Option(("U",), True, True, "%"),
    "sql": _Option(("P",), True, True),
}
_CURL_FLAGS = tuple("sSfkLivgGIN")
"""Flags that may precede ``u`` in one argument: ``-su user:x``."""
_CURL_USER = ("--user", "--proxy-user")
_SETTINGS = frozenset({"aws_secret_access_key", "aws_session_token"})
"""``aws configure set NAME VALUE``."""


class Redactor:
    """Redacts secrets in command lines.

    ``patterns`` are regular expressions of the user, searched in each argument: the match is a secret, or its groups if
    it has any.  Their running time is not bounded.  If ``defaults`` is false, only these are used.  Raises TracerError
    (EXIT_USAGE) for an invalid regular expression.
    """

    def __init__(self, patterns: Sequence[str] = (), defaults: bool = True) -> None:
        self._patterns = [_compile(pattern) for pattern in patterns]
        self._defaults = defaults

    def redact(self, cmdline: list[str]) -> list[str]:
        """Replace each secret by REDACTED; the number of arguments stays the same."""
        for pattern in self._patterns:
            cmdline = [_redact_matches(pattern, argument) for argument in cmdline]
        if not self._defaults:
            return list(cmdline)
        words = _Words(0)
        redacted = [redact_text(words.redact_argument(argument)) for argument in cmdline]
        return redact_aws_secrets(redacted) if any(map(has_aws_key, cmdline)) else redacted


class _Words:
    """Redacts the words of one command line, in order; earlier words decide about later ones."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._end_command()

    def _end_command(self) -> None:
        self._program: str | None = None
        self._is_program_first = False
        self._is_first = True
        self._before = self._previous = ""
        self._pending: Callable[[str], str] | None = None

    def redact_argument(self, text: str) -> str:
        """Redact an argument or a quoted text: a word, a value with spaces, or a shell script."""
        if self._pending is not None or not _SHELL_SIGNS.search(text):
            return self._redact_word(text)
        option_before = self._previous.startswith("-") and not self._previous.endswith("c")
        if (text.startswith("-") or option_before) and (pair := _PAIR.match(text)) and secret_kind(pair[1]):
            return self._redact_word(text)
        self._is_first, self._previous = False, text
        if self._depth == _DEPTH:
            return text
        nested = _Words(self._depth + 1)
        return _SHELL.sub(nested._redact_shell_word, text)

    def _redact_shell_word(self, match: re.Match[str]) -> str:
        word = match[0]
        if match["operator"]:
            if word.strip("<>"):
                self._end_command()
            return word
        quote = word[0]
        if quote in "\"'" and self._pending is None:
            end = len(word) - (len(word) > 1 and word[-1] == quote)
            return quote + self.redact_argument(word[1:end]) + word[end:]
        return self._redact_word(word)

    def _redact_word(self, word: str) -> str:
        pending, self._pending = self._pending, None
        first, self._is_first = self._is_first, self._is_first and word in _WRAPPERS
        previous = self._before = self._previous
        self._previous = word
        if pending is not None and not (word.startswith("-") and len(word) > 1):
            return pending(word)
        redacted = self._short_option(word)
        if redacted is not None:
            return redacted
        pair = _PAIR.match(word)
        if pair is not None:
            return self._redact_pair(word, pair)
        if word.startswith("-"):
            return self._long_option(word)
        if word in _SETTINGS:
            self._pending = lambda value: redact_value(value, "password")
        program = _PROGRAM.match(word.rpartition("/")[2][:_PROGRAM_LEN])
        if program is not None and (first or not previous.startswith("-")):
            self._program, self._is_program_first = program.lastgroup, first
        return word

    def _redact_pair(self, word: str, pair: re.Match[str]) -> str:
        name, sign, value = pair.groups()
        if name in _ASSIGNMENT_OPTIONS and (inner := _PAIR.match(value)):
            return f"{name}{sign}{self._redact_pair(value, inner)}"
        kind = secret_kind(name)
        if kind is None or (sign[0] == ":" and not name.startswith("-") and self._before not in _HEADER):
            return self._long_option(word) if word.startswith("-") else word
        end = len(value)
        if not name.startswith("-") and value[:1] not in ('"', "'"):
            rest = _REST_OF_LIST.search(value)
            end = rest.start() if rest else end
        return name + sign + redact_value(value[:end], kind) + value[end:]

    def _long_option(self, word: str) -> str:
        kind = secret_kind(word)
        if kind is not None and not _FLAG.match(word) and self._program not in ("mysql", "prompting"):
            self._pending = lambda value: redact_value(value, kind)
        elif self._program == "curl" and word in _CURL_USER:
            self._pending = lambda value: _redact_after(value, ":")
        return word

    def _short_option(self, word: str) -> str | None:
        """Redact ``-px``, or note ``-p``, of a program for which it is a secret; None for any other word."""
        option = _OPTIONS.get(self._program or "")
        if option is None or word[:1] != "-":
            return None
        start = 1
        while self._program == "curl" and word[start : start + 1] in _CURL_FLAGS:
            start += 1
        if word[start : start + 1] not in option.letters:
            return None
        start += 1
        secret = word[start:]
        # After another program, -p may belong to that one: docker run mysql -p3306:3306
        may_be_port = not self._is_program_first
        if self._program == "sshpass":
            self._program = None
        if not secret and option.separate:
            self._pending = lambda value: (
                value if may_be_port and _PORT.match(value) else _redact_after(value, option.after)
            )
        elif secret and option.attached and not (may_be_port and _PORT.match(secret)):
            return word[:start] + _redact_after(secret, option.after)
        return word


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise TracerError(
            f"invalid regular expression {pattern!r}", f"{error}; see Python's re module for the syntax", EXIT_USAGE
        ) from error


def _redact_matches(pattern: re.Pattern[str], text: str) -> str:
    groups = range(1, pattern.groups + 1) if pattern.groups else (0,)
    spans = sorted(match.span(group) for match in pattern.finditer(text) for group in groups)
    parts, done = [], 0
    for start, end in spans:
        if end <= max(start, done):
            continue
        if start < done:  # nested groups are one secret
            start = done
        else:
            parts += [text[done:start], REDACTED]
        done = end
    return "".join(parts) + text[done:]


def _redact_after(value: str, sign: str) -> str:
    """Redact the part of a value after the first separator; without the separator, return the value unchanged."""
    if not sign:
        return redact_value(value, "password")
    before, separator, secret = value.partition(sign)
    quote = before[:1] if before[:1] in ('"', "'") and secret.endswith(before[:1]) else ""
    secret = secret.removesuffix(quote) if quote else secret
    return before + separator + (redact_value(secret, "password") if secret else "") + quote
