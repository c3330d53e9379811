# SPDX-License-Identifier: Apache-2.0
"""TracerError, the only exception that users see: what failed, and what to do about it."""

from tracer.base.printable import printable

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNSUPPORTED = 3
"""This host cannot trace, or not yet; the hint says what is missing."""


class TracerError(Exception):
    """Ends the command with one line, ``message: hint``, and with ``exit_code``."""

    def __init__(self, message: str, hint: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(printable(f"{message}: {hint}"))
        self.message = message
        self.hint = hint
        self.exit_code = exit_code


def read_hint(error: OSError) -> str:
    """The hint for a file that cannot be read."""
    return "run it as root (sudo)" if isinstance(error, PermissionError) else "name another file"
