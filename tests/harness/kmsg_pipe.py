# SPDX-License-Identifier: Apache-2.0
"""Imitates /dev/kmsg, one record per read, by a pipe in packet mode."""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterable, Iterator

from tracer.logs.kmsg import Kmsg
from tracer.logs.log_line import LogLine

_LARGEST_BYTES = 1 << 20
_SPELLED = re.compile(rb"[^ -\[\]-~]")
"""Bytes that msg_add_ext_text(), kernel/printk/printk.c, escapes."""


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, Kmsg]]:
    """The write end of the pipe, and the log that reads the other end."""
    reader, writer = os.pipe2(os.O_DIRECT)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _LARGEST_BYTES)
    kmsg = Kmsg(f"/proc/self/fd/{reader}")
    os.close(reader)
    try:
        yield writer, kmsg
    finally:
        os.close(writer)


def kmsg_of(log: Iterable[LogLine]) -> Kmsg:
    """A log with these lines."""
    with pipe() as (writer, kmsg):
        for sequence, line in enumerate(log):
            text = _SPELLED.sub(lambda match: b"\\x%02x" % match[0][0], line.text)
            os.write(writer, b"4,%d,%d,-;%s\n" % (sequence, (line.time_ns or 0) // 1000, text))
    return kmsg
