# SPDX-License-Identifier: Apache-2.0
"""Faults, made on purpose while processes are killed, and an account of every kill: tests.reliability.table sums up."""
