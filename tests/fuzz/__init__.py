# SPDX-License-Identifier: Apache-2.0
"""Hostile input: a table of targets (targets.py), each one function that takes bytes and asserts what must hold.

``make fuzz`` runs each for long, guided by coverage; tests/unit/project/test_fuzz.py runs each for a moment.
"""
