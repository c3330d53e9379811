# SPDX-License-Identifier: Apache-2.0
"""An OpenTelemetry Collector between daemon and store: no record is lost when either is down."""

from pathlib import Path

from tests.harness.daemon import Daemon

from .configuration import adapted
from .conftest import Kill, Start
from .go_programs import OTELCOL
from .program import accepts, free_port
from .stored_ways import OTLP, check_all, wait_for_kills
from .victoria_logs import VictoriaLogs


def test_passed_on(daemon: Daemon, start_program: Start, kill: Kill, tmp_path: Path) -> None:
    """All records arrive, with OpenTelemetry's attribute names."""
    store, port = VictoriaLogs(tmp_path, start_program), free_port()
    places = {
        "127.0.0.1:4318": f"127.0.0.1:{port}",
        "127.0.0.1:9428": f"127.0.0.1:{store.port}",
        "    sending_queue": '    headers: {VL-Extra-Fields: "way=otelcol"}\n    sending_queue',
    }
    own = adapted("otel-collector/oomtrace.yaml", places, tmp_path)
    collector = start_program("otelcol", [OTELCOL.build(), f"--config={own}"], accepts(port))
    daemon.start("--output", f"otlp+http://127.0.0.1:{port}")
    kill(3)
    wait_for_kills(store, "otelcol", OTLP, 3)
    collector.kill()
    kill(3)
    daemon.wait_for_kills(6)
    store.program.stop()
    collector.start()
    kill(2)
    daemon.wait_for_kills(8)
    store.program.start()
    wait_for_kills(store, "otelcol", OTLP, 8)
    daemon.stop()
    check_all(daemon, store, "otelcol", OTLP)
