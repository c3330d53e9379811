# SPDX-License-Identifier: Apache-2.0
"""Checks of this host for `oomtrace doctor`."""
