# SPDX-License-Identifier: Apache-2.0
"""rsyslog takes the records by each transport and parses them."""

import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.harness.daemon import Daemon
from tests.harness.environment import wait_until

from .certificates import Certificates
from .configuration import adapted
from .conftest import Kill, Start
from .delivery import check_delivered, killed, once
from .program import Program, accepts, bound_udp, free_port
from .syslog_ways import ARRIVES_S, Ways, check_ways
from .unpacked import unpacked

PACKAGES = ("rsyslog", "rsyslog-gnutls")
INPUTS = {"imuxsock": "unix", "imudp": "udp", "imptcp": "tcp", "imtcp": "tls"}


class Rsyslog:
    """rsyslog with Debian's configuration and those of deploy/, and its output."""

    def __init__(self, folder: Path, start: Start) -> None:
        self.folder = folder
        self.written = folder / "oom-kills.log"
        self._start = start

    def start(self, configurations: Sequence[str], places: Mapping[str, Mapping[str, object]], ready: Any) -> Program:
        """``places`` are the replacements in each configuration, see adapted()."""
        main = [
            f'global(workDirectory="{self.folder}" processInternalMessages="on")',
            'module(load="imuxsock" sysSock.use="off")',
        ]
        for name in configurations:
            main.append(f'include(file="{adapted(f"rsyslog/{name}", places[name], self.folder)}")')
        (self.folder / "rsyslog.conf").write_text("\n".join(main) + "\n")
        pid = self.folder / "rsyslog.pid"
        command = [*unpacked("rsyslog", *PACKAGES), "sh", "-c", 'rm -f "$1"; exec rsyslogd -n -f "$0" -i "$1"']
        return self._start("rsyslog", [*command, "rsyslog.conf", pid], lambda: pid.exists() and ready())

    def received(self) -> list[dict[str, Any]]:
        """The messages so far, without a partial line."""
        lines = self.written.read_bytes().split(b"\n")[:-1] if self.written.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
def rsyslog(tmp_path: Path, start_program: Start) -> Rsyslog:
    return Rsyslog(tmp_path, start_program)


def test_file(daemon: Daemon, rsyslog: Rsyslog, kill: Kill, tmp_path: Path) -> None:
    """imfile follows the file across rotations, and reads later what is written while rsyslog is down."""
    path = tmp_path / "oomtrace.jsonl"
    name = "oomtrace-file.conf"
    places = {"/var/log/oom-kills.log": rsyslog.written, "/var/log/oomtrace/oomtrace.json": tmp_path / "oomtrace.json"}
    program = rsyslog.start([name], {name: places}, lambda: True)
    daemon.start("--output", f"file:{path}?rotate-bytes=6K")
    victims = kill(10, pause_ms=50)
    wait_until("the kills", lambda: victims <= killed(rsyslog.received()), ARRIVES_S)
    program.kill()
    rotated = set(tmp_path.glob("oomtrace.jsonl.*"))
    victims |= kill(10)
    daemon.stop()
    assert len(rotated) > 1
    assert len(set(tmp_path.glob("oomtrace.jsonl.*")) - rotated) > 1, "no rotation while rsyslog was down"
    program.start()
    wait_until("all records", lambda: len(once(rsyslog.received())) == len(once(daemon.records())), ARRIVES_S)
    assert victims <= killed(rsyslog.received())
    check_delivered(daemon, rsyslog.received(), in_order=False)  # of several files it reads the newest first


def test_syslog(daemon: Daemon, rsyslog: Rsyslog, kill: Kill, tmp_path: Path, certificates: Certificates) -> None:
    """UNIX socket, UDP, TCP and TLS at once: each gets all records in order, and their fields are parsed."""
    ways = Ways(tmp_path / "log.sock", free_port(socket.SOCK_DGRAM), free_port(), free_port(), certificates)
    plain, tls = "oomtrace-syslog.conf", "oomtrace-tls.conf"
    places = {
        plain: {
            "/var/log/oom-kills.log": rsyslog.written,
            "/run/oomtrace-syslog.sock": ways.socket,
            'port="514"': f'port="{ways.udp_port}"',
            'port="601"': f'port="{ways.tcp_port}"',
        },
        tls: {
            'port="6514"': f'port="{ways.tls_port}"',
            "/etc/rsyslog/ca.pem": certificates.authority,
            "/etc/rsyslog/server.pem": certificates.server,
            "/etc/rsyslog/server.key": certificates.server_key,
        },
    }
    listens = [accepts(ways.socket), bound_udp(ways.udp_port), accepts(ways.tcp_port), accepts(ways.tls_port)]
    program = rsyslog.start([plain, tls], places, lambda: all(each() for each in listens))
    check_ways(daemon, kill, program, ways, lambda: [read(each) for each in rsyslog.received()])


def read(received: dict[str, Any]) -> dict[str, Any]:
    """A message in the form of syslog_ways."""
    message = received["message"]
    return {
        **received,
        "way": INPUTS[received["input"]],
        "record": message["record"],
        "data": message.get("rfc5424-sd"),
    }
