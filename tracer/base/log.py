# SPDX-License-Identifier: Apache-2.0
"""Tells whoever runs oomtrace; records have their own ways."""

import os
import select

from tracer.base.printable import printable


def tell(text: str) -> None:
    """A line on stderr, unless whoever reads it does not: nothing waits for him."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    try:
        if poll.poll(0):
            os.write(2, f"oomtrace: {printable(text)}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass
