# SPDX-License-Identifier: Apache-2.0
"""Real OOM kills on the running kernel, the real tracer, and what the kernel itself says about them."""

import pytest

# Their assertions are to show what differed, as those of the tests do.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in ("daemon", "eater", "oracles", "watch")))
