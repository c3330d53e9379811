# SPDX-License-Identifier: Apache-2.0
"""VictoriaLogs, a store for most HTTP protocols of logs.

It acknowledges lines before they are on disk and loses them on SIGKILL, so tests stop it with SIGTERM.
"""

import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tracer.base.clock import parse_rfc3339

from .conftest import Start
from .go_programs import VICTORIA_LOGS
from .program import accepts, free_port

Stored = dict[str, Any]


class VictoriaLogs:
    def __init__(self, folder: Path, start: Start) -> None:
        self.port = free_port()
        command = [
            VICTORIA_LOGS.build(),
            f"-storageDataPath={folder}/victoria-logs",
            f"-httpListenAddr=127.0.0.1:{self.port}",
        ]
        self.program = start("victoria-logs", command, accepts(self.port))

    def query(self, text: str) -> list[Stored]:
        """Results of a LogsQL query."""
        data = urllib.parse.urlencode({"query": text}).encode()
        url = f"http://127.0.0.1:{self.port}/select/logsql/query"
        with urllib.request.urlopen(url, data, timeout=30) as response:
            return [json.loads(line) for line in response]

    def stored(self, way: str) -> list[Stored]:
        """All that was received by one way, in the order of time."""
        return sorted(self.query(f"way:={way}"), key=lambda each: parse_rfc3339(each["_time"]) or 0)
