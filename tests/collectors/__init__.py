# SPDX-License-Identifier: Apache-2.0
"""Real kills, a real tracer, and the programs that people have for logs: killed and restarted in the middle.

Programs come from Debian's packages, and run in the foreground with a scratch folder; no service is started.
"""

import pytest

pytest.register_assert_rewrite(f"{__name__}.delivery", f"{__name__}.syslog_ways")
