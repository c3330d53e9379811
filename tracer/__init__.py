# SPDX-License-Identifier: Apache-2.0
"""oomtrace: one JSON line for every process that the kernel's OOM killer kills."""

__version__ = "0.1.0"
