# SPDX-License-Identifier: Apache-2.0
"""Exponential backoff for retries."""

import time

FIRST_S, MAX_S = 0.1, 5.0
"""The first and the longest pause between two attempts; each pause is twice the one before."""
REQUESTED_MAX_S = 60.0
"""The longest pause that the other side may request."""


class BackOff:
    def __init__(self) -> None:
        self.retry_at_s = 0.0
        """Time of the next attempt (CLOCK_MONOTONIC); 0: at once."""
        self._pause_s = 0.0

    def failed(self, requested_s: float = 0.0) -> None:
        """An attempt failed.  ``requested_s``: the pause that the other side requests (Retry-After)."""
        self._pause_s = min(max(2 * self._pause_s, FIRST_S), MAX_S)
        self.retry_at_s = time.monotonic() + max(self._pause_s, min(requested_s, REQUESTED_MAX_S))

    def reset(self) -> None:
        """An attempt succeeded, or the next one may start at once."""
        self.retry_at_s = self._pause_s = 0.0
