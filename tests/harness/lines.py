# SPDX-License-Identifier: Apache-2.0
"""Lines as outputs get them, told apart by a number, and what is read back."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from tracer.delivery.output import Output

from .environment import TIMEOUT_SCALE

TIMEOUT_S = TIMEOUT_SCALE * 20.0


def record(number: int, bytes_: int = 0) -> bytes:
    """A record's line, at least so long."""
    head = b'{"schema":1,"type":"oom_kill","id":"k-%d","comm":"' % number
    return head + b"x" * max(0, bytes_ - len(head) - 3) + b'"}\n'


def numbers(data: bytes) -> list[int]:
    """The numbers of lines, all of which must be whole records."""
    assert not data or data.endswith(b"\n")
    return [int(json.loads(line)["id"].removeprefix("k-")) for line in data.splitlines()]


def numbers_in(path: Path) -> list[int]:
    return numbers(path.read_bytes()) if path.exists() else []


def whole_numbers(data: bytes) -> list[int]:
    """The numbers of those lines that are whole."""
    return [
        int(number)
        for number in re.findall(rb'^\{"schema":1,"type":"oom_kill","id":"k-(\d+)","comm":"x*"\}$', data, re.M)
    ]


def wait_for(is_so: Callable[[], object], seconds: float = TIMEOUT_S) -> None:
    until_s = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until_s, "it did not come"
        time.sleep(0.005)


def settle(output: Output, count: int) -> None:
    """Wait until so many lines are settled."""
    wait_for(lambda: output.acknowledged == count)
