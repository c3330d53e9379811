# SPDX-License-Identifier: Apache-2.0
"""``oomtrace watch``: opens the source of records and the terminal, and runs the screen."""

import os
import signal
import sys
from typing import IO, Any

from tracer.base.errors import EXIT_UNSUPPORTED, EXIT_USAGE, TracerError
from tracer.base.extras import install_hint
from tracer.base.printable import printable
from tracer.logs.log_file import STDIN
from tracer.watch.feed import RecordFeed


def watch(path: str | None) -> int:
    """Show records until q is pressed; returns the exit code, which is the tracer's if it failed.

    Raises TracerError without a terminal, without urwid, or if the file cannot be read.
    """
    try:
        from tracer.watch.screen import Screen
    except ImportError as error:
        if error.name != "urwid":
            raise
        raise TracerError("oomtrace watch needs urwid", install_hint("watch"), EXIT_UNSUPPORTED) from error
    if sys.stdout is None or not sys.stdout.isatty():
        raise TracerError("there is no terminal", "run it in one (ssh -t), or see oomtrace run", EXIT_USAGE)
    piped = sys.stdin is not None and not sys.stdin.isatty()
    if path is None and piped:
        path = STDIN
    if path == STDIN and not piped:
        raise TracerError("nothing is piped in", "oomtrace run | oomtrace watch -, or give a file", EXIT_USAGE)
    feed = RecordFeed(path)
    keyboard = _open_keyboard()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        Screen(feed, keyboard).run()
    finally:
        feed.stop()
    if feed.exit_code and feed.messages:
        print(printable(feed.messages[-1]), file=sys.stderr)
    return max(0, feed.exit_code) if feed.ended else 0


def _open_keyboard() -> IO[str]:
    if sys.stdin is not None and sys.stdin.isatty():
        return sys.stdin
    try:
        return open("/dev/tty")
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        raise TracerError(f"cannot open /dev/tty ({reason})", "run it in one (ssh -t)", EXIT_USAGE) from error


def _interrupt(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt
