# SPDX-License-Identifier: Apache-2.0
"""Hypothesis without deadlines: the machines that run tests may be slow, and a slow example is no failure.

And SIGINT ends what tests start, even where they run in a shell's background, whose processes are made to ignore it.
"""

import signal

from hypothesis import settings

signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("oomtrace", deadline=None)
settings.load_profile("oomtrace")
