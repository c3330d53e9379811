# SPDX-License-Identifier: Apache-2.0
"""When to try again what has failed."""

import time

FIRST_S, MAX_S = 0.1, 5.0
"""The pause between two tries; each is twice the one before."""
ASKED_MAX_S = 60.0
"""The other side may ask for a longer one."""


class BackOff:
    def __init__(self) -> None:
        self.until_s = 0.0
        """Not before this time (CLOCK_MONOTONIC)."""
        self._pause_s = 0.0

    def failed(self, asked_s: float = 0.0) -> None:
        """Once more; the other side asks to be left alone for so long."""
        self._pause_s = min(max(2 * self._pause_s, FIRST_S), MAX_S)
        self.until_s = time.monotonic() + max(self._pause_s, min(asked_s, ASKED_MAX_S))

    def end(self) -> None:
        """It works, or may be tried at once."""
        self.until_s = self._pause_s = 0.0
