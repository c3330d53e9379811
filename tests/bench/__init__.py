# SPDX-License-Identifier: Apache-2.0
"""oomtrace beside other tools that show OOM kills, on this kernel and in a virtual machine: `python -m tests.bench`."""
