# SPDX-License-Identifier: Apache-2.0
"""What others can make hang, read by processes that are given up when it does."""
