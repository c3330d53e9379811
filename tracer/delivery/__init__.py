# SPDX-License-Identifier: Apache-2.0
"""Deliver lines to outputs: queues, spools, sinks, and metrics."""
