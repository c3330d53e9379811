# SPDX-License-Identifier: Apache-2.0
"""The time of a record (RFC 3339 in UTC) as a number, for commands that compare and subtract times."""

import re
from datetime import datetime

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(?:Z|\+00:00)\Z", re.ASCII)


def unix_seconds(time: str | None) -> float | None:
    """Unix time to the microsecond; None: null, or not a valid time."""
    match = _RFC3339.match(time or "")
    if match is None:
        return None
    try:  # Python 3.10 parses neither nanoseconds nor Z, and needs 6 digits
        return datetime.fromisoformat(f"{match[1]}{match[2] or '.':0<7.7}+00:00").timestamp()
    except (ValueError, OverflowError):
        return None
