# SPDX-License-Identifier: Apache-2.0
"""``python -m tracer``: the same as the command ``oomtrace``."""

from tracer.cli import main

main()
