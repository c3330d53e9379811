# SPDX-License-Identifier: Apache-2.0
"""log.py: a reader of stderr that does not read blocks nothing."""

import os
import subprocess
import sys
import time


def test_nobody_reads() -> None:
    """A message that finds no room in the pipe is dropped."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    began_s = time.monotonic()
    program = "from tracer.base.log import warn\nfor _ in range(1000): warn('nobody reads this')"
    subprocess.run([sys.executable, "-c", program], stderr=writer, check=True, timeout=20)
    assert time.monotonic() - began_s < 10
    os.close(reader)
    os.close(writer)
