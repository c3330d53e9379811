# SPDX-License-Identifier: Apache-2.0
"""Real OOM kills in containers of real runtimes: every record's names are compared with the runtime's own answer.

The tests start each runtime's daemons themselves, with state of their own, and leave nothing behind.
"""

import pytest

pytest.register_assert_rewrite("tests.runtimes.victims")
