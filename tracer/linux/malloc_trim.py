# SPDX-License-Identifier: Apache-2.0
"""The heap of the C library, which keeps what was freed unless told otherwise."""

import ctypes
import gc


def trim_heap() -> None:
    """What starting took and running does not need: some MB."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
