# SPDX-License-Identifier: Apache-2.0
"""All transports to a syslog server at once, which is killed and restarted meanwhile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.harness.daemon import Daemon
from tests.harness.environment import wait_until
from tests.harness.oracles import Record
from tracer.encoding.styles import flat

from .certificates import Certificates
from .conftest import Kill
from .delivery import check_delivered, killed
from .program import Program

ARRIVES_S = 45.0
NAMES = ("unix", "udp", "tcp", "tls")
Message = dict[str, Any]


class Ways(NamedTuple):
    """Where the server listens, per transport."""

    socket: Path
    udp_port: int
    tcp_port: int
    tls_port: int
    certificates: Certificates

    def outputs(self) -> list[str]:
        own = self.certificates
        tls = f"ca-file={own.authority}&cert-file={own.client}&key-file={own.client_key}"
        uris = [
            f"syslog+unix:{self.socket}?facility=local3",
            f"syslog+udp://127.0.0.1:{self.udp_port}",
            f"syslog+tcp://127.0.0.1:{self.tcp_port}",
            f"syslog+tls://localhost:{self.tls_port}?{tls}",
        ]
        return [word for uri in uris for word in ("--output", uri)]


def check_ways(daemon: Daemon, kill: Kill, program: Program, ways: Ways, received: Callable[[], list[Message]]) -> None:
    """Check delivery by each way; ``received`` returns messages with their ``way`` (of NAMES) and fields."""

    def by(way: str) -> list[Message]:
        return [each for each in received() if each["way"] == way]

    def have_all(victims: set[int]) -> bool:
        return all(victims <= killed(map(record, by(way))) for way in NAMES)

    daemon.start(*ways.outputs())
    victims = kill(5)
    wait_until("the kills by each way", lambda: have_all(victims), ARRIVES_S)
    program.kill()
    victims |= kill(5)
    program.start()
    wait_until("the kills of the downtime by each way", lambda: have_all(victims), ARRIVES_S)
    daemon.stop()
    wait_until(
        "the stop record by each way", lambda: all(record(by(way)[-1])["type"] == "stop" for way in NAMES), ARRIVES_S
    )
    for way in NAMES:
        check_delivered(daemon, [record(each) for each in by(way)])
        for each in by(way):
            check_header(each, record(each), "local3" if way == "unix" else "daemon")


def record(message: Message) -> Record:
    found: Record = json.loads(message["record"]) if isinstance(message["record"], str) else message["record"]
    return found


def check_header(message: Message, record: Record, facility: str) -> None:
    """Check that the message's header has the fields of the record."""
    assert message["program"] == "oomtrace"
    assert message["host"] == record["host"]["name"]
    assert message["kind"] == record["type"]
    severity = {"oom_kill": 3, "gap": 4, "lost": 4}.get(record["type"], 6)
    assert int(message["priority"]) == {"daemon": 3, "local3": 19}[facility] * 8 + severity
    if record["type"] == "oom_kill":
        data = flat(message["data"]["oomtrace@32473"])  # syslog-ng nests what has a dot in its name
        assert data["victim.comm"] == record["victim"]["comm"]
        assert data["victim.pid"] == str(record["victim"]["pid"])
        assert data["id"] == record["id"]
