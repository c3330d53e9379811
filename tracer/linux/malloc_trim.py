# SPDX-License-Identifier: Apache-2.0
"""The heap of the C library, which keeps freed memory (malloc_trim(3))."""

import ctypes
import gc


def trim_heap() -> None:
    """Return the memory that only the start needed, some MB, to the system."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
