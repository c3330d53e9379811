# SPDX-License-Identifier: Apache-2.0
"""Numbered lines for outputs, and the numbers read back."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from tracer.delivery.output import Output

from .environment import TIMEOUT_SCALE

TIMEOUT_S = TIMEOUT_SCALE * 20.0


def record(number: int, bytes_: int = 0) -> bytes:
    """The line of a record, with at least this many bytes."""
    head = b'{"schema":1,"type":"oom_kill","id":"k-%d","comm":"' % number
    return head + b"x" * max(0, bytes_ - len(head) - 3) + b'"}\n'


def numbers(data: bytes) -> list[int]:
    """Numbers of lines, all of which must be complete."""
    assert not data or data.endswith(b"\n")
    return [int(json.loads(line)["id"].removeprefix("k-")) for line in data.splitlines()]


def numbers_in(path: Path) -> list[int]:
    return numbers(path.read_bytes()) if path.exists() else []


def whole_numbers(data: bytes) -> list[int]:
    """Numbers of the complete lines."""
    return [
        int(number)
        for number in re.findall(rb'^\{"schema":1,"type":"oom_kill","id":"k-(\d+)","comm":"x*"\}$', data, re.M)
    ]


def wait_for(is_so: Callable[[], object], seconds: float = TIMEOUT_S) -> None:
    until_s = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until_s, f"not within {seconds:g} s"
        time.sleep(0.005)


def settle(output: Output, count: int) -> None:
    """Wait until the output has acknowledged this many lines."""
    wait_for(lambda: output.acknowledged == count)
