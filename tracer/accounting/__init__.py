# SPDX-License-Identifier: Apache-2.0
"""The kernel's own counts of OOM kills, compared with the records."""
