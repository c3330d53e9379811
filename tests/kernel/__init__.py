# SPDX-License-Identifier: Apache-2.0
"""OOM kills on the running kernel, with a real daemon; the oracles are the kernel's log and counters."""
