# SPDX-License-Identifier: Apache-2.0
"""Records as /dev/kmsg gives them, one a read, through a pipe that keeps them apart."""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterable, Iterator

from tracer.logs.kmsg import Kmsg
from tracer.logs.log_line import LogLine

_LARGEST_BYTES = 1 << 20
_SPELLED = re.compile(rb"[^ -\[\]-~]")
"""Bytes that msg_add_ext_text(), kernel/printk/printk.c, does not print as they are."""


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, Kmsg]]:
    """An end to write records to, and the log that has them."""
    reader, writer = os.pipe2(os.O_DIRECT)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _LARGEST_BYTES)
    kmsg = Kmsg(f"/proc/self/fd/{reader}")
    os.close(reader)
    try:
        yield writer, kmsg
    finally:
        os.close(writer)


def kmsg_of(log: Iterable[LogLine]) -> Kmsg:
    """A log that has these lines of the kernel's."""
    with pipe() as (writer, kmsg):
        for sequence, line in enumerate(log):
            text = _SPELLED.sub(lambda match: b"\\x%02x" % match[0][0], line.text)
            os.write(writer, b"4,%d,%d,-;%s\n" % (sequence, (line.time_ns or 0) // 1000, text))
    return kmsg
