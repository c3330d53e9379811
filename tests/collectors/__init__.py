# SPDX-License-Identifier: Apache-2.0
"""Delivery to real log collectors: real kills, a real daemon, and collectors that are killed and restarted.

Programs come from Debian's packages and run in the foreground in a temporary directory; no service is started.
"""

import pytest

pytest.register_assert_rewrite(f"{__name__}.delivery", f"{__name__}.syslog_ways")
