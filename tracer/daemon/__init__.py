# SPDX-License-Identifier: Apache-2.0
"""The daemon: composes capture, pipeline and delivery."""
