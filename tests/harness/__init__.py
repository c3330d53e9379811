# SPDX-License-Identifier: Apache-2.0
"""What the tests of several folders use: the daemon as a process, cgroups, the memory eater, the kernel's own words."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"

# Their assertions are to show what differed, as those of the tests do.
pytest.register_assert_rewrite(
    *(f"{__name__}.{module}" for module in ("daemon", "eater", "oracles", "schema", "watch"))
)
