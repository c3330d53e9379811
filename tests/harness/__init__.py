# SPDX-License-Identifier: Apache-2.0
"""The library of the tests: the daemon as a process, cgroups, the memory eater, the kernel log and counters."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"

# Rewritten, so that their assertions show the values as those of tests do.
pytest.register_assert_rewrite(
    *(f"{__name__}.{module}" for module in ("daemon", "eater", "oracles", "schema", "watch"))
)
