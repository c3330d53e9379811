# SPDX-License-Identifier: Apache-2.0
"""Every stage by itself: no root, no other kernel."""
