# SPDX-License-Identifier: Apache-2.0
"""Debian kernels in QEMU, for tests on other kernels and tests that exhaust the memory of a whole machine."""
