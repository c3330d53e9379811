# SPDX-License-Identifier: Apache-2.0
"""Real OOM kills in containers of real runtimes: the names in each record are compared with the runtime's answer.

The tests start each runtime's daemons with separate state, and leave nothing behind.
"""

import pytest

pytest.register_assert_rewrite("tests.runtimes.victims")
