# SPDX-License-Identifier: Apache-2.0
"""Unmodified Debian kernels under QEMU, for tests that need another kernel, or a whole machine to run out of memory."""
