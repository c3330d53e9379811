# SPDX-License-Identifier: Apache-2.0
"""Processes by whom the OOM killer would choose, as `oomtrace top` shows them."""
