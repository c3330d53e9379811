# SPDX-License-Identifier: Apache-2.0
"""``oomtrace watch``: records as they are written -> a terminal."""
