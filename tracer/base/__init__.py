# SPDX-License-Identifier: Apache-2.0
"""Used by every package, and uses none of them: errors, clocks, printable text, messages, threads, slow disks."""
