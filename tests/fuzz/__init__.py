# SPDX-License-Identifier: Apache-2.0
"""Hostile input: a table of targets (targets.py), functions that take bytes and assert invariants.

``make fuzz`` runs each for minutes, guided by coverage; tests/unit/project/test_fuzz.py runs each briefly.
"""
