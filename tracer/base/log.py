# SPDX-License-Identifier: Apache-2.0
"""Messages to stderr, for the operator; records go to the outputs (tracer/delivery)."""

import os
import select

from tracer.base.printable import printable


def warn(text: str) -> None:
    """Write one line to stderr, or drop it when the reader of stderr is not reading: a write must never block."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    try:
        if poll.poll(0):
            os.write(2, f"oomtrace: {printable(text)}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass
