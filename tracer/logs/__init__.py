# SPDX-License-Identifier: Apache-2.0
"""Kernel logs, live and of the past, in any format -> the OOM kills that they report."""
