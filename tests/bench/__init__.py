# SPDX-License-Identifier: Apache-2.0
"""Compares oomtrace with other tools for OOM kills, on this kernel and in a VM: ``python -m tests.bench``."""
