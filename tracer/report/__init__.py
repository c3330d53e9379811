# SPDX-License-Identifier: Apache-2.0
"""``oomtrace report``: records and kernel logs -> an HTML page, or Markdown."""
