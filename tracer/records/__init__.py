# SPDX-License-Identifier: Apache-2.0
"""The record: its model, its owner, its filters, and what follows from it."""
