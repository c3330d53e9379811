# SPDX-License-Identifier: Apache-2.0
"""Hypothesis without deadlines: the machines that run tests may be slow, and a slow example is no failure.

Its inputs are the same in every run, so that one that fails does so where it was written; `make fuzz` takes new ones.

And SIGINT ends what tests start, even where they run in a shell's background, whose processes are made to ignore it.
"""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from tracer.identity.runtimes import ROOTS, Runtimes

signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("new", deadline=None)
settings.load_profile(os.environ.get("OOMTRACE_INPUTS", "same"))


@pytest.fixture
def runtimes(tmp_path: Path) -> Runtimes:
    """Runtimes that keep their files in folders of this test."""
    return Runtimes([(name, str(tmp_path / name)) for name in ROOTS])
