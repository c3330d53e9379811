# SPDX-License-Identifier: Apache-2.0
"""The positions of words in a log's data, and the lines in front of them."""

import re
from heapq import heapreplace

_SPELLED = tuple(b",".join(b"%d" % byte for byte in word) for word in (b"oom-killer", b"process"))
"""`KEYWORDS` in the journal's JSON, in a text that is not UTF-8 and therefore a list of numbers."""
_SPELLED_DETAILS = (b'"MESSAGE":[',)
SPACED_JSON = re.compile(rb'\{ ?"[A-Z_]{1,64}" ?: ')
"""The JSON of journalctl until systemd 240, and of others."""
_SPACED = tuple(word.replace(b",", b", ") for word in _SPELLED)
_SPACED_DETAILS = (b'"MESSAGE": [', b'"MESSAGE" : [')
_LINES_BEFORE = 16
"""A name in a record may contain newlines, and in ``dmesg -J`` the time is some lines in front of the text."""
STRETCH_BYTES = 16384
LOOK_BACK_BYTES = 256 << 10
"""The other lines of a report whose first line may be missing are searched for this far in front of `KEYWORDS`."""


class WordSearch:
    """Finds words in some data; each position is searched for once."""

    def __init__(self, words: tuple[bytes, ...]) -> None:
        self._heap = [(-1, word) for word in sorted(words)]

    def find(self, data: bytes, at: int, end: int) -> int:
        """The position of the next word from ``at`` on, or ``end``; data and ``end`` must be the same in all calls."""
        heap = self._heap
        place, word = heap[0]
        while place < at:
            found = data.find(word, at, end)
            heapreplace(heap, (found if found >= 0 else end, word))
            place, word = heap[0]
        return place


def find_lines_before(data: bytes, least: int, place: int) -> int:
    """The begin of the lines that may belong to the line with ``place`` in it; at least ``least``."""
    begin = place
    for _ in range(_LINES_BEFORE):
        begin = data.rfind(b"\n", max(least, place - STRETCH_BYTES), max(least, begin - 1)) + 1
        if begin <= least:
            return least
    return begin


def keep_skipped(before: memoryview, data: bytes, at: int, to: int) -> memoryview:
    """The last LOOK_BACK_BYTES of what was skipped: ``before``, which precedes the data, and the data from ``at``."""
    skipped = memoryview(data)[max(at, to - LOOK_BACK_BYTES) : to]
    if at == 0 and len(skipped) < LOOK_BACK_BYTES:
        return memoryview(b"".join((before, skipped))[-LOOK_BACK_BYTES:])
    return skipped


def add_json_spellings(
    data: bytes, begins: tuple[bytes, ...], details: tuple[bytes, ...], is_spaced: bool
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The words to search for in data that may be JSON."""
    if data[:1] != b"{" and data.find(b"\n{", 0, STRETCH_BYTES) < 0:
        return begins, details
    if not is_spaced:
        return (*begins, *_SPELLED), (*details, *_SPELLED_DETAILS)
    return (*begins, *_SPELLED, *_SPACED), (*details, *_SPELLED_DETAILS, *_SPACED_DETAILS)
