# SPDX-License-Identifier: Apache-2.0
"""``oomtrace watch``: finds the source and the terminal, and puts the screen between them."""

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
    """Show records until q; gives the exit code, that of the tracer where it failed.

    Raises TracerError without a terminal, without urwid, or for a file that cannot be read.
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
    keyboard = _keyboard()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        Screen(feed, keyboard).run()
    finally:
        feed.stop()
    if feed.exit_code and feed.said:
        print(printable(feed.said[-1]), file=sys.stderr)
    return max(0, feed.exit_code) if feed.ended else 0


def _keyboard() -> IO[str]:
    if sys.stdin is not None and sys.stdin.isatty():
        return sys.stdin
    try:
        return open("/dev/tty")
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        raise TracerError(f"no terminal takes keys ({reason})", "run it in one (ssh -t)", EXIT_USAGE) from error


def _interrupt(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt
