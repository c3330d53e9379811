# SPDX-License-Identifier: Apache-2.0
"""mosquitto, without persistence, takes the records, and a subscriber gets them."""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.daemon import Daemon
from tests.harness.environment import wait_until
from tests.harness.oracles import Record

from . import certificates
from .certificates import Certificates
from .configuration import adapted
from .conftest import Kill, Start
from .delivery import check_delivered, killed
from .program import Program, accepts, free_port

ARRIVES_S = 60.0
TOPIC = "oom-kills"


class Broker(NamedTuple):
    program: Program
    port: int
    tls_port: int
    folder: Path
    made: Certificates

    @property
    def uri(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}/{TOPIC}?user=oomtrace&password-file={self.folder}/password"


@pytest.fixture
def broker(tmp_path: Path, start_program: Start) -> Broker:
    made, port, tls_port = certificates.make(tmp_path), free_port(), free_port()
    for user in ("oomtrace", "reader"):
        passwords = tmp_path / "passwd"
        command = [
            "mosquitto_passwd",
            *(() if passwords.exists() else ("-c",)),
            "-b",
            str(passwords),
            user,
            f"secret of {user}",
        ]
        subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "password").write_text("secret of oomtrace\n")
    (tmp_path / "password").chmod(0o600)
    places = {
        "/etc/mosquitto/oomtrace.passwd": tmp_path / "passwd",
        "/etc/mosquitto/oomtrace.acl": adapted("mosquitto/oomtrace.acl", {}, tmp_path),
        "/etc/mosquitto/certs/server.pem": made.server,
        "/etc/mosquitto/certs/server.key": made.server_key,
        "listener 1883": f"listener {port}",
        "listener 8883": f"listener {tls_port}",
        "persistence true": "persistence false\nuser root\nlog_dest stderr",
        "persistence_location /var/lib/mosquitto/": f"persistence_location {tmp_path}/",
    }
    configuration = adapted("mosquitto/oomtrace.conf", places, tmp_path)
    program = start_program(
        "mosquitto", ["mosquitto", "-c", configuration], lambda: accepts(port)() and accepts(tls_port)()
    )
    return Broker(program, port, tls_port, tmp_path, made)


class Subscriber:
    """mosquitto_sub, which reconnects by itself."""

    def __init__(self, broker: Broker, start: Start) -> None:
        self._got = broker.folder / "subscriber.log"
        options = ["-V", "5", "-t", TOPIC, "-q", "1", "-i", "reader", "-u", "reader", "-P", "secret of reader"]
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), *options, "-F", "%P\t%p"]
        start("subscriber", command, lambda: True)

    def got(self) -> list[tuple[str, Record]]:
        """User properties and record of the messages so far."""
        lines = self._got.read_bytes().split(b"\n")[:-1]
        pairs = [line.decode().split("\t", 1) for line in lines if b"\t" in line]
        return [(properties, json.loads(payload)) for properties, payload in pairs]

    def records(self) -> list[Record]:
        return [record for _, record in self.got()]


def test_killed_and_restarted(daemon: Daemon, broker: Broker, kill: Kill, start_program: Start) -> None:
    """Kills without a broker, or without a subscriber, arrive later."""
    daemon.start("--output", broker.uri)
    victims = kill(2)
    wait_until("the warning", lambda: f"topic {TOPIC} has no subscribers" in daemon.stderr(), ARRIVES_S)
    subscriber = Subscriber(broker, start_program)
    victims |= kill(5)
    wait_until("the kills", lambda: victims <= killed(subscriber.records()), ARRIVES_S)
    broker.program.kill()
    victims |= kill(5)
    broker.program.start()
    victims |= kill(5)
    wait_until("all kills", lambda: victims <= killed(subscriber.records()), ARRIVES_S)
    daemon.stop()
    wait_until("the stop record", lambda: subscriber.records()[-1]["type"] == "stop", ARRIVES_S)
    check_delivered(daemon, subscriber.records())
    for properties, record in subscriber.got():
        expected = {"type": record["type"], "id": record.get("id"), "host": record["host"]["name"]}
        assert properties == " ".join(f"{name}:{value}" for name, value in expected.items() if value is not None)


def test_tls(daemon: Daemon, broker: Broker, kill: Kill, start_program: Start) -> None:
    """A wrong certificate and a wrong password are reported without the passwords."""
    uri = broker.uri.replace("mqtt://", "mqtts://").replace(f":{broker.port}/", f":{broker.tls_port}/")
    wrong = broker.folder / "wrong"
    wrong.write_text("nobody's secret")
    wrong.chmod(0o600)
    subscriber = Subscriber(broker, start_program)
    daemon.start(
        *("--output", f"{uri}&name=stranger&ca-file={broker.made.stranger}"),
        *("--output", f"{uri.replace('/password', '/wrong')}&name=wrong&ca-file={broker.made.authority}"),
        *("--output", f"{uri}&name=right&ca-file={broker.made.authority}"),
    )
    victims = kill(3)
    wait_until("the kills", lambda: victims <= killed(subscriber.records()), ARRIVES_S)
    errors = ("CERTIFICATE_VERIFY_FAILED", "the broker answered: Not authorized")
    wait_until("both errors", lambda: all(words in daemon.stderr() for words in errors), ARRIVES_S)
    assert "secret" not in daemon.stderr()


def test_forbidden_topic(daemon: Daemon, broker: Broker, kill: Kill) -> None:
    """A broker that refuses to publish says so in its MQTT 5 acknowledgement: nothing counts as delivered."""
    daemon.start("--output", broker.uri.replace(f"/{TOPIC}?", "/elsewhere?"))
    kill(1)
    wait_until("the error", lambda: "the broker answered: Not authorized" in daemon.stderr(), ARRIVES_S)
