# SPDX-License-Identifier: Apache-2.0
"""In: the journal of oomtrace.service.  Out: the records that it writes from now on."""

import json
import os
import selectors
import subprocess
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

UNIT = "oomtrace.service"


class Journal:
    """Follows the records that are written after it was made; close it, or use it in a with statement."""

    def __init__(self) -> None:
        last = subprocess.run(
            ["journalctl", "--quiet", "--boot", f"--unit={UNIT}", "--lines=1", "--output=json"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        after = [f"--after-cursor={json.loads(last)['__CURSOR']}"] if last else []
        self._process = subprocess.Popen(
            ["journalctl", "--quiet", "--boot", f"--unit={UNIT}", "--follow", "--lines=all", "--output=cat", *after],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        self._descriptor = self._process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._descriptor, selectors.EVENT_READ)
        self._rest = b""

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        self._process.kill()
        self._process.communicate()

    def records(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Records as they come, until so much time has passed or journalctl ends."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self._selector.select(left):
            data = os.read(self._descriptor, 1 << 16)
            if not data:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b"{"):  # what is no record is a message on stderr, or of systemd
                    yield json.loads(line)
