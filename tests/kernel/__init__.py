# SPDX-License-Identifier: Apache-2.0
"""Real OOM kills on the running kernel, the real tracer, and what the kernel itself says about them."""
