# SPDX-License-Identifier: Apache-2.0
"""The daemon: composes the capture, the pipeline and the delivery."""
