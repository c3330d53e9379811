# SPDX-License-Identifier: Apache-2.0
"""Fluent Forward, to the Fluent organisation's server for Node.js; Debian has neither Fluent Bit nor fluentd."""

import fcntl
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.harness.daemon import Daemon
from tests.harness.environment import ROOT, wait_until
from tests.harness.oracles import Record

from . import certificates
from .conftest import Kill, Start
from .delivery import check_delivered, killed
from .program import Program, accepts, free_port

ARRIVES_S = 60.0
LOGGER = "@fluent-org/logger@1.0.10"
FOLDER = ROOT / "build" / "collectors" / "fluent"
SECURITY = {"serverHostname": "fluent", "sharedKey": "the key", "authorize": True, "userDict": {"oomtrace": "a secret"}}


@pytest.fixture(scope="session")
def modules() -> Path:
    """The server's node_modules, downloaded once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (FOLDER / "node_modules" / "@fluent-org" / "logger" / "package.json").exists():
            options = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(FOLDER)]
            subprocess.run(["npm", "install", *options, LOGGER], check=True, timeout=300)
    return FOLDER


class FluentForwardServer:
    """The server, and the entries that it has received."""

    def __init__(self, modules: Path, folder: Path, start: Start, where: Mapping[str, Any], **options: Any) -> None:
        at = Path(where["path"]) if "path" in where else int(where["port"])
        script = Path(__file__).with_name("fluent_server.js")
        command = ["node", script, modules, json.dumps({"listenOptions": where, **options})]
        self._got = folder / "fluent.log"
        self.program: Program = start("fluent", command, accepts(at))

    def got(self) -> list[tuple[str, str, Record]]:
        """Tag, time and record of the entries so far."""
        lines = self._got.read_bytes().split(b"\n")[:-1]
        return [tuple(json.loads(line, object_hook=_exact)) for line in lines if line.startswith(b"[")]

    def records(self) -> list[Record]:
        return [record for _, _, record in self.got()]


def _exact(fields: dict[str, Any]) -> Any:
    return int(fields["int"]) if list(fields) == ["int"] else fields


def test_killed_and_restarted(daemon: Daemon, modules: Path, kill: Kill, start_program: Start, tmp_path: Path) -> None:
    """Over TCP: tag, time and every field arrive; kills while the server is down arrive later."""
    port = free_port()
    server = FluentForwardServer(modules, tmp_path, start_program, {"port": port, "host": "127.0.0.1"})
    daemon.start("--output", f"forward://127.0.0.1:{port}/oomtrace")
    victims = kill(5)
    wait_until("the kills", lambda: victims <= killed(server.records()), ARRIVES_S)
    server.program.kill()
    victims |= kill(5)
    server.program.start()
    victims |= kill(20, pause_ms=20)
    wait_until("all kills", lambda: victims <= killed(server.records()), ARRIVES_S)
    daemon.stop()
    wait_until("the stop record", lambda: server.records()[-1]["type"] == "stop", ARRIVES_S)
    check_delivered(daemon, server.records())
    for tag, time, record in server.got():
        assert tag == "oomtrace"
        assert time.partition(".")[2] == record["time"].removesuffix("Z").partition(".")[2]


def test_unix(daemon: Daemon, modules: Path, kill: Kill, start_program: Start, tmp_path: Path) -> None:
    """Over a UNIX socket, with the given tag."""
    path = tmp_path / "fluent.sock"
    server = FluentForwardServer(modules, tmp_path, start_program, {"path": str(path)})
    daemon.start("--output", f"forward+unix:{path}?tag=kernel.oom")
    victims = kill(3)
    wait_until("the kills", lambda: victims <= killed(server.records()), ARRIVES_S)
    assert {tag for tag, _, _ in server.got()} == {"kernel.oom"}


def test_tls_and_key(daemon: Daemon, modules: Path, kill: Kill, start_program: Start, tmp_path: Path) -> None:
    """With TLS, a key and a user; a wrong key and a wrong password are reported without their values."""
    made, port = certificates.make(tmp_path), free_port()
    tls = {"cert": str(made.server), "key": str(made.server_key)}
    where = {"port": port, "host": "127.0.0.1"}
    server = FluentForwardServer(modules, tmp_path, start_program, where, tlsOptions=tls, security=SECURITY)
    for name, secret in {"key": "the key", "password": "a secret", "other": "no secret"}.items():
        (tmp_path / name).write_text(f"{secret}\n")
        (tmp_path / name).chmod(0o600)
    uri = f"forward+tls://127.0.0.1:{port}/oom?ca-file={made.authority}&user=oomtrace"
    daemon.start(
        *("--output", f"{uri}&shared-key-file={tmp_path}/other&password-file={tmp_path}/password&name=key"),
        *("--output", f"{uri}&shared-key-file={tmp_path}/key&password-file={tmp_path}/other&name=user"),
        *("--output", f"{uri}&shared-key-file={tmp_path}/key&password-file={tmp_path}/password&name=right"),
    )
    victims = kill(3)
    wait_until("the kills", lambda: victims <= killed(server.records()), ARRIVES_S)
    wait_until("both errors", lambda: daemon.stderr().count("the server rejected the key or the user") == 2, ARRIVES_S)
    assert not any(secret in daemon.stderr() for secret in ("the key'", "a secret", "no secret"))
