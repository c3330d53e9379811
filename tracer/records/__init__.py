# SPDX-License-Identifier: Apache-2.0
"""The record: its model, owner, id, filters and schema, and conclusions from it."""
