# SPDX-License-Identifier: Apache-2.0
"""Where words stand in a log's data, and what stands in front of them."""

import re
from heapq import heapreplace

SPELLED = tuple(b",".join(b"%d" % byte for byte in word) for word in (b"oom-killer", b"process"))
"""One of them is in each of `WORDS`: in the journal's JSON a text that is no UTF-8 is a list of numbers."""
SPELLED_COUNTS = (b'"MESSAGE":[',)
SPACED = re.compile(rb'\{ ?"[A-Z_]{1,64}" ?: ')
"""journalctl wrote JSON so until systemd 240, as others do."""
SPACED_BEGINS = tuple(word.replace(b",", b", ") for word in SPELLED)
SPACED_COUNTS = (b'"MESSAGE": [', b'"MESSAGE" : [')
LINES_BEFORE = 16
"""A name in a record may hold newlines, and in ``dmesg -J`` the time stands some lines before the text."""
STRETCH_BYTES = 16384
LOOK_BACK_BYTES = 256 << 10
"""So far in front of `WORDS` the other lines are looked for of a report whose first line may be missing."""


class WordSearch:
    """Where words stand in some data; each is looked for once."""

    def __init__(self, words: tuple[bytes, ...]) -> None:
        self._heap = [(-1, word) for word in sorted(words)]

    def next(self, data: bytes, at: int, end: int) -> int:
        """The next of the words from ``at`` on; ``end`` is the same in all calls, and so are the data."""
        heap = self._heap
        place, word = heap[0]
        while place < at:
            found = data.find(word, at, end)
            heapreplace(heap, (found if found >= 0 else end, word))
            place, word = heap[0]
        return place


def lines_before(data: bytes, least: int, place: int) -> int:
    """Where the lines begin that may belong to the one with ``place`` in it; not before ``least``."""
    begin = place
    for _ in range(LINES_BEFORE):
        begin = data.rfind(b"\n", max(least, place - STRETCH_BYTES), max(least, begin - 1)) + 1
        if begin <= least:
            return least
    return begin


def passed_over(before: memoryview, data: bytes, at: int, to: int) -> memoryview:
    """What lies between, and in front of it, as far as is looked back; ``before`` is what came before the data."""
    found = memoryview(data)[max(at, to - LOOK_BACK_BYTES) : to]
    if at == 0 and len(found) < LOOK_BACK_BYTES:
        return memoryview(b"".join((before, found))[-LOOK_BACK_BYTES:])
    return found


def with_spelled(
    data: bytes, begins: tuple[bytes, ...], counts: tuple[bytes, ...], is_spaced: bool
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The words to look for in data, which may be JSON."""
    if data[:1] != b"{" and data.find(b"\n{", 0, STRETCH_BYTES) < 0:
        return begins, counts
    if not is_spaced:
        return (*begins, *SPELLED), (*counts, *SPELLED_COUNTS)
    return (*begins, *SPELLED, *SPACED_BEGINS), (*counts, *SPELLED_COUNTS, *SPACED_COUNTS)
