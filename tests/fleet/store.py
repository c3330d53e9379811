# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL with the tables of deploy/fleet, and the loader of records from the broker."""

import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, Any

import psycopg

from tests.harness.environment import ROOT, attempts

SQL = ROOT / "deploy" / "fleet"
BATCH_LINES, BATCH_S = 500, 0.1


class Postgres:
    """A server in a directory, with a socket there and without a port."""

    def __init__(self, folder: Path) -> None:
        (binaries,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
        self._folder = folder / "postgres"
        self._folder.mkdir(mode=0o700)
        shutil.chown(self._folder, "postgres", "postgres")
        folder.chmod(0o755)
        self._data = self._folder / "data"
        as_postgres = ["runuser", "-u", "postgres", "--"]
        made = [*as_postgres, str(binaries / "initdb"), "-D", str(self._data), "-A", "trust", "-U", "postgres"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
        log = (folder / "postgres.log").open("wb")
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self._folder}"]
        self.process = subprocess.Popen(
            [*as_postgres, binaries / "postgres", "-D", self._data, *options], stdout=log, stderr=log
        )
        log.close()
        for _ in attempts(30, 0.1):
            try:
                self.connect().close()
                break
            except psycopg.OperationalError:
                continue
        with self.connect() as connection:
            connection.execute((SQL / "postgresql.sql").read_text())

    def connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        return psycopg.connect(host=str(self._folder), user="postgres", dbname="postgres")

    def ask(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Names of the columns, and the rows."""
        with self.connect() as connection:
            cursor = connection.execute(sql)
            return [column.name for column in cursor.description or ()], cursor.fetchall()

    def answers(self) -> list[tuple[str, list[str], list[tuple[Any, ...]]]]:
        """Each query of deploy/fleet, and its result."""
        return [(question, *self.ask(sql)) for question, sql in questions("postgresql")]

    def table_bytes(self) -> int:
        return int(self.ask("SELECT pg_total_relation_size('oom_record')")[1][0][0])

    def close(self) -> None:
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        subprocess.run(["kill", "-QUIT", str(pid)], check=True)
        self.process.wait(30)


def questions(store: str) -> list[tuple[str, str]]:
    """Title and SQL of each query."""
    parts = (SQL / f"queries.{store}.sql").read_text().split("\n-- ")[1:]
    return [(words, sql.strip().rstrip(";")) for words, _, sql in (part.partition("\n") for part in parts)]


class Loader(threading.Thread):
    """Reads ``UNIX_SECONDS<tab>LINE`` from a subscriber, stores lines in batches, and notes the time of each."""

    def __init__(self, lines: IO[bytes], postgres: Postgres, kept: Path) -> None:
        super().__init__(daemon=True)
        self.received: list[tuple[float, float, bytes]] = []
        """Time received from the broker, time stored, the line."""
        self._lines, self._connection, self._kept = lines, postgres.connect(), kept

    def run(self) -> None:
        batch: list[tuple[float, bytes]] = []
        ready = threading.Event()
        lock = threading.Lock()

        def store_forever() -> None:
            while True:
                ready.wait(BATCH_S)
                ready.clear()
                with lock:
                    taken, batch[:] = batch[:], []
                for first in range(0, len(taken), BATCH_LINES):
                    self._store(taken[first : first + BATCH_LINES])

        threading.Thread(target=store_forever, daemon=True).start()
        with self._kept.open("wb") as kept:
            for text in self._lines:
                at, _, line = text.partition(b"\t")
                kept.write(line)
                with lock:
                    batch.append((float(at), line))
                    if len(batch) >= BATCH_LINES:
                        ready.set()

    def _store(self, taken: list[tuple[float, bytes]]) -> None:
        with self._connection.cursor() as cursor, cursor.copy("COPY oom_line FROM STDIN") as copy:
            for _, line in taken:
                copy.write_row([line.decode()])
        self._connection.commit()
        now_s = time.time()
        self.received += [(at, now_s, line) for at, line in taken]
