# SPDX-License-Identifier: Apache-2.0
"""``oomtrace top``: processes, their limits, and the next OOM victims."""
