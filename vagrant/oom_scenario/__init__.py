# SPDX-License-Identifier: Apache-2.0
"""Runs scenarios that make OOM kills, and compares oomtrace's records with what they expect; see __main__."""
