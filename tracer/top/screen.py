# SPDX-License-Identifier: Apache-2.0
"""A terminal that shows lines, and shows them anew: as wide and high as it is at the moment, until somebody ends it."""

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
"""The other screen, no cursor, lines that are cut instead of wrapped; and back."""
_HOME, _REST_OF_LINE, _REST = b"\x1b[H", b"\x1b[K", b"\x1b[J"
_QUIT = b"qQ\x04"

Lines = Callable[[int, int], list[str]]
"""What to show in so many columns and rows."""


def is_terminal() -> bool:
    """Whether standard output is a terminal that can be painted."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def terminal_size() -> tuple[int, int]:
    """Columns and rows."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns = rows = 0
    return columns or 80, rows or 24  # a serial line does not know


def refresh_screen(lines: Lines, seconds: float, times: int | None = None) -> None:
    """Show them every so many seconds, and whenever the size changes; until q, SIGINT or SIGTERM, or so often.

    What was on the terminal is there again when this returns or raises.
    """
    with _prepared() as woken:
        while times is None or times > 0:
            _paint(lines(*terminal_size()))
            times = None if times is None else times - 1
            if times == 0 or _ends(woken, seconds):
                return


def _paint(lines: list[str]) -> None:
    text = b"\n".join(line.encode("utf-8", "backslashreplace") + _REST_OF_LINE for line in lines)
    sys.stdout.buffer.write(_HOME + text + _REST)
    sys.stdout.flush()


def _ends(woken: int, seconds: float) -> bool:
    """Wait; whether somebody asked for the end."""
    sources = [woken, sys.stdin.fileno()] if _has_keys() else [woken]
    ready = select.select(sources, [], [], seconds)[0]
    if woken in ready:
        signals = os.read(woken, 64)
        return any(number in signals for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    if ready:
        keys = os.read(ready[0], 64)
        return not keys or any(key in _QUIT for key in keys)
    return False


def _has_keys() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


@contextmanager
def _prepared() -> Iterator[int]:
    """The other screen and keys one by one; gives what becomes readable when a signal comes: its number is in it."""
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    caught = (signal.SIGWINCH, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [(number, signal.signal(number, _nothing)) for number in caught]
    mode = termios.tcgetattr(sys.stdin) if _has_keys() else None
    try:
        if mode is not None:
            tty.setcbreak(sys.stdin)
        sys.stdout.buffer.write(_ALTERNATE)
        yield woken
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
            os.close(woken)
            os.close(waker)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The number is in the pipe."""
