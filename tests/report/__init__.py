# SPDX-License-Identifier: Apache-2.0
"""The report in a real browser, and the watch in a real terminal."""
