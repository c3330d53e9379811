# SPDX-License-Identifier: Apache-2.0
r"""Reads the kernel's log, /dev/kmsg.

Format: Documentation/ABI/testing/dev-kmsg, `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,caller=T123];TEXT`, then lines of `
KEY=VALUE`; unprintable bytes and the backslash are `\xNN`.

A process that may write to /dev/kmsg (root) can add lines, but not with facility 0, the kernel's: devkmsg_write(),
kernel/printk/printk.c, replaces it by LOG_USER. Therefore only lines of facility 0 are read.
"""

import errno
import os
import re
from collections.abc import Iterator

from tracer.logs.log_line import LogLine
from tracer.logs.oom_lines import DROPPED_LINE

PATH = "/dev/kmsg"
_LONGEST = 16384
"""The longest record: CONSOLE_EXT_LOG_MAX, then PRINTK_MESSAGE_MAX; the kernel does not give parts of records."""
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


class Kmsg:
    """An open log, with a position of its own.

    Raises OSError if the log cannot be opened; with kernel.dmesg_restrict this needs CAP_SYSLOG, once.
    """

    def __init__(self, path: str = PATH) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if path == PATH and os.fstat(self._fd).st_rdev != os.makedev(1, 11):  # in a container
            os.close(self._fd)
            raise OSError(errno.ENODEV, "not the kernel's log", path)
        self._next: int | None = None
        self.dropped = 0
        """The number of lines that were overwritten before they were read."""

    def fileno(self) -> int:
        """For poll(): readable when there is a new line."""
        return self._fd

    def close(self) -> None:
        """Close the log."""
        os.close(self._fd)

    def rewind(self) -> None:
        """Read from the oldest line on."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._next = None

    def read(self) -> Iterator[LogLine]:
        """The kernel's lines from the current position on; times are of printk's clock.

        Lines that were overwritten are replaced by the line with which the kernel reports them on consoles.
        """
        while True:
            try:
                record = os.read(self._fd, _LONGEST)
            except BlockingIOError:
                return
            except BrokenPipeError:  # overwritten; the next read gives the oldest line
                continue
            if not record:
                return
            prefix, _, rest = record.partition(b";")
            try:
                priority, sequence, microseconds = map(int, prefix.split(b",", 3)[:3])
            except ValueError:
                continue
            if self._next is not None and sequence > self._next:
                self.dropped += sequence - self._next
                yield LogLine(DROPPED_LINE % (sequence - self._next))
            self._next = sequence + 1
            if priority >> 3 == 0:
                text = rest.partition(b"\n")[0]
                if b"\\" in text:
                    text = _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), text)
                yield LogLine(text, microseconds * 1000, "printk", _caller(prefix))


def _caller(prefix: bytes) -> bytes | None:
    return next((field[7:] for field in prefix.split(b",")[4:] if field.startswith(b"caller=")), None)
