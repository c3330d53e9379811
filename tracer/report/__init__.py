# SPDX-License-Identifier: Apache-2.0
"""Records of the past -> a page or a text for people."""
