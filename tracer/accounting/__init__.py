# SPDX-License-Identifier: Apache-2.0
"""The kernel's own counts, held against what was recorded."""
