# SPDX-License-Identifier: Apache-2.0
"""The type of targets, and random changes of bytes."""

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

Mutate = Callable[[bytes, Random], bytes]

_BYTES = (0, 1, 9, 10, 27, 34, 47, 92, 127, 128, 155, 194, 255)
_NUMBERS = (0, 1, 2, 15, 255, 1 << 15, (1 << 16) - 1, 1 << 31, (1 << 32) - 1, 1 << 52, 1 << 63, (1 << 64) - 1)


def mutate(data: bytes, random: Random) -> bytes:
    """Change, insert, remove or repeat a few bytes, or write boundary values."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        start = random.randrange(len(changed) + 1)
        end = min(len(changed), start + random.choice((1, 2, 4, 8, 64)))
        match random.randrange(6):
            case 0:
                changed[start:end] = random.choice(_NUMBERS).to_bytes(8, "little")[: end - start]
            case 1:
                changed[start:end] = bytes(random.choice(_BYTES) for _ in range(end - start))
            case 2:
                del changed[start:end]
            case 3:
                changed[start:start] = changed[start:end] * random.choice((1, 2, 50))
            case 4:
                changed[start:start] = random.randbytes(random.choice((1, 3, 40)))
            case _:
                for at in range(start, end):
                    changed[at] ^= 1 << random.randrange(8)
    return bytes(changed)


class Target(NamedTuple):
    name: str
    run: Callable[[bytes], None]
    """Takes any input; raises AssertionError only, if an invariant does not hold."""
    seeds: Callable[[], Sequence[bytes]]
    """Valid inputs to start from."""
    mutate: Mutate = mutate
    """Changes that keep the structure, if changed bytes would be rejected early."""
    changes: int = 200
    """Number of inputs in the unit tests, which take seconds."""
