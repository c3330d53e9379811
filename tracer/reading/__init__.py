# SPDX-License-Identifier: Apache-2.0
"""Reads that others can make hang, made by processes that are given up when they do."""
