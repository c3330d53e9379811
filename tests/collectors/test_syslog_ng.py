# SPDX-License-Identifier: Apache-2.0
"""syslog-ng takes the records by each transport and parses them."""

import json
import socket
from pathlib import Path
from typing import Any

from tests.harness.daemon import Daemon

from .certificates import Certificates
from .configuration import adapted
from .conftest import Kill, Start
from .program import accepts, bound_udp, free_port
from .syslog_ways import Ways, check_ways, record
from .unpacked import unpacked

PACKAGES = ("syslog-ng-core", "syslog-ng-scl")


def test_syslog(daemon: Daemon, start_program: Start, kill: Kill, tmp_path: Path, certificates: Certificates) -> None:
    """UNIX socket, UDP, TCP and TLS at once: each gets all records in order, and their fields are parsed."""
    written = tmp_path / "oom-kills.log"
    ways = Ways(tmp_path / "log.sock", free_port(socket.SOCK_DGRAM), free_port(), free_port(), certificates)
    places = {
        "/var/log/oom-kills.log": written,
        "/run/oomtrace-syslog.sock": ways.socket,
        "port(514)": f"port({ways.udp_port})",
        "port(601)": f"port({ways.tcp_port})",
        "port(6514)": f"port({ways.tls_port})",
        "/etc/syslog-ng/ca.pem": certificates.authority,
        "/etc/syslog-ng/server.pem": certificates.server,
        "/etc/syslog-ng/server.key": certificates.server_key,
    }
    own = adapted("syslog-ng/oomtrace.conf", places, tmp_path)
    main = tmp_path / "syslog-ng.conf"
    main.write_text(f'@version: current\noptions {{ use-dns(no); keep-hostname(yes); }};\n@include "{own}"\n')
    listens = [accepts(ways.socket), bound_udp(ways.udp_port), accepts(ways.tcp_port), accepts(ways.tls_port)]
    command = [*unpacked("syslog-ng", *PACKAGES), "syslog-ng", "-F", "-f", main, "--no-caps"]
    for option, name in (("--pidfile", "pid"), ("--persist-file", "persist"), ("--control", "control")):
        command += [option, tmp_path / name]
    program = start_program("syslog-ng", command, lambda: all(each() for each in listens))

    def received() -> list[dict[str, Any]]:
        lines = written.read_bytes().split(b"\n")[:-1] if written.exists() else []
        return [{**each, "way": way(each)} for each in map(json.loads, lines)]

    check_ways(daemon, kill, program, ways, received)
    for each in received():
        if record(each)["type"] == "oom_kill":
            assert each["fields"]["victim"]["comm"] == record(each)["victim"]["comm"]
            assert each["fields"]["victim"]["rss_bytes"] == str(record(each)["victim"]["rss_bytes"])


def way(message: dict[str, Any]) -> str:
    (found,) = {"unix", "udp", "tcp", "tls"} & set(message["input"].split(","))
    return found
