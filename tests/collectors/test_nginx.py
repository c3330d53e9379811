# SPDX-License-Identifier: Apache-2.0
"""HTTPS through nginx, which requires a certificate and a token, limits size and rate, and drops connections."""

import os
import re
import signal
from pathlib import Path

from tests.harness.daemon import Daemon

from .certificates import Certificates
from .configuration import adapted
from .conftest import Kill, Start
from .program import accepts, free_port
from .stored_ways import NDJSON, check_all, wait_for_kills
from .unpacked import unpacked
from .victoria_logs import VictoriaLogs

MAIN = """
daemon off; master_process off; user root; pid {folder}/nginx.pid; error_log stderr;
events {{}}
http {{
    access_log {folder}/access.log; keepalive_timeout 1s;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {own};
}}
"""


def test_limits(daemon: Daemon, start_program: Start, kill: Kill, tmp_path: Path, certificates: Certificates) -> None:
    """Requests that are too large, too frequent, late or reset lose no record; a new token is read."""
    store, port = VictoriaLogs(tmp_path, start_program), free_port()
    places = {
        "listen 8443": f"listen 127.0.0.1:{port}",
        "/etc/nginx/server.pem": certificates.server,
        "/etc/nginx/server.key": certificates.server_key,
        "/etc/nginx/ca.pem": certificates.authority,
        "Bearer change-me": "Bearer geheim",
        "127.0.0.1:9428": f"127.0.0.1:{store.port}",
    }
    own = adapted("nginx/oomtrace.conf", places, tmp_path)
    (tmp_path / "nginx.conf").write_text(MAIN.format(folder=tmp_path, own=own))
    command = [*unpacked("nginx", "nginx"), "nginx", "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", "stderr"]
    nginx = start_program("nginx", command, accepts(port))
    token = tmp_path / "token"
    token.write_text("of yesterday\n")
    token.chmod(0o600)
    options = f"token-file={token}&ca-file={certificates.authority}&cert-file={certificates.client}"
    query = "_time_field%3Dtime%26_msg_field%3Dtype%26_stream_fields%3Dhost.name%26extra_fields%3Dway%3Dnginx"
    uri = f"https://localhost:{port}/insert/jsonline?{options}&key-file={certificates.client_key}&query={query}"
    daemon.start("--output", uri)
    kill(2)
    daemon.wait_for_kills(2)
    token.write_text("geheim\n")
    wait_for_kills(store, "nginx", NDJSON, 2)
    nginx.kill()
    kill(12)
    nginx.start()
    wait_for_kills(store, "nginx", NDJSON, 14)
    assert store.program.process is not None
    os.kill(store.program.process.pid, signal.SIGSTOP)
    kill(3)
    daemon.wait_for_kills(17)
    nginx.restart()
    os.kill(store.program.process.pid, signal.SIGCONT)
    wait_for_kills(store, "nginx", NDJSON, 17)
    daemon.stop()
    check_all(daemon, store, "nginx", NDJSON)
    statuses = set(re.findall(r'" (\d{3}) ', (tmp_path / "access.log").read_text()))
    assert {"200", "401", "413", "429"} <= statuses, statuses
    assert "geheim" not in daemon.stderr()
    assert "the server answered 401" in daemon.stderr()
