# SPDX-License-Identifier: Apache-2.0
"""A full-screen view of lines that is refreshed, and follows the size of the terminal."""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ALTERNATE, _NORMAL = b"\x1b[?1049h\x1b[?25l\x1b[?7l", b"\x1b[?7h\x1b[?25h\x1b[?1049l"
"""Enter the alternate screen, hide the cursor, and disable wrapping; and the reverse."""
_HOME, _REST_OF_LINE, _REST = b"\x1b[H", b"\x1b[K", b"\x1b[J"
_QUIT = b"qQ\x04"

Lines = Callable[[int, int], list[str]]
"""Makes the lines for a number of columns and rows."""


def is_terminal() -> bool:
    """Whether standard output is a terminal that supports cursor movement."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def terminal_size() -> tuple[int, int]:
    """Columns and rows of the terminal."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns = rows = 0
    return columns or 80, rows or 24  # a serial line reports 0


def refresh_screen(lines: Lines, seconds: float, times: int | None = None) -> None:
    """Show the lines every ``seconds``, and when the size changes, until q, SIGINT or SIGTERM, or ``times`` times.

    The previous content of the terminal is restored on return and on error.
    """
    with _prepared() as wakeup:
        while times is None or times > 0:
            _draw(lines(*terminal_size()))
            times = None if times is None else times - 1
            if times == 0 or _wait_for_end(wakeup, seconds):
                return


def _draw(lines: list[str]) -> None:
    text = b"\n".join(line.encode("utf-8", "backslashreplace") + _REST_OF_LINE for line in lines)
    sys.stdout.buffer.write(_HOME + text + _REST)
    sys.stdout.flush()


def _wait_for_end(wakeup: int, seconds: float) -> bool:
    """Wait; returns whether q was pressed or a signal asked to end."""
    sources = [wakeup, sys.stdin.fileno()] if _has_keys() else [wakeup]
    ready = select.select(sources, [], [], seconds)[0]
    if wakeup in ready:
        signals = os.read(wakeup, 64)
        return any(number in signals for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    if ready:
        keys = os.read(ready[0], 64)
        return not keys or any(key in _QUIT for key in keys)
    return False


def _has_keys() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


@contextmanager
def _prepared() -> Iterator[int]:
    """Prepare the screen and the keyboard; yields a descriptor from which numbers of signals are read."""
    wakeup, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    caught = (signal.SIGWINCH, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [(number, signal.signal(number, _ignore)) for number in caught]
    mode = termios.tcgetattr(sys.stdin) if _has_keys() else None
    try:
        if mode is not None:
            tty.setcbreak(sys.stdin)
        sys.stdout.buffer.write(_ALTERNATE)
        yield wakeup
    finally:
        if mode is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, mode)
        try:
            sys.stdout.buffer.write(_NORMAL)
            sys.stdout.flush()
        finally:
            for number, handler in handlers:
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
            os.close(wakeup)
            os.close(waker)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """set_wakeup_fd() writes the signal's number into the pipe."""
