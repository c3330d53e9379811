# SPDX-License-Identifier: Apache-2.0
"""Holds a process in exit(), with ptrace(2)."""

import contextlib
import ctypes
import os
from collections.abc import Iterator

PTRACE_DETACH, PTRACE_SEIZE = 17, 0x4206
PTRACE_O_TRACEEXIT = 1 << 6


@contextlib.contextmanager
def stopped_in_exit(pid: int) -> Iterator[None]:
    """Stop this child on its exit, where it keeps its memory and pid, until the block is left."""
    _ptrace(PTRACE_SEIZE, pid, PTRACE_O_TRACEEXIT)
    try:
        yield
    finally:
        os.waitpid(pid, 0)
        _ptrace(PTRACE_DETACH, pid)


def _ptrace(request: int, pid: int, data: int = 0) -> None:
    function = ctypes.CDLL(None, use_errno=True).ptrace
    function.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if function(request, pid, None, data):
        raise OSError(ctypes.get_errno(), f"ptrace({request:#x}, {pid}): {os.strerror(ctypes.get_errno())}")
