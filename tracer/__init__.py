# SPDX-License-Identifier: Apache-2.0
"""oomtrace: one JSON line per process killed by the kernel's OOM killer."""

import os

PACKAGE = os.path.dirname(os.path.abspath(__file__))
"""Where the compiled programs and, in an installed package, their sources are."""
__version__ = "0.1.0"
