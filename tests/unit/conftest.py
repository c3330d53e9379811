# SPDX-License-Identifier: Apache-2.0
"""Hypothesis without deadlines: the machines that run tests may be slow, and a slow example is no failure."""

from hypothesis import settings

settings.register_profile("oomtrace", deadline=None)
settings.load_profile("oomtrace")
