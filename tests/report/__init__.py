# SPDX-License-Identifier: Apache-2.0
"""The report in a browser, and the watch in a terminal."""
