# SPDX-License-Identifier: Apache-2.0
"""What an unprivileged user can learn about a running daemon, as docs/security.md lists it."""

import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.daemon import Daemon
from tests.harness.environment import IN_VM, TIMEOUT_S, not_applicable, wait_until

from .conftest import Eat, MakeDaemon
from .test_pins import folder, pins  # noqa: F401 - fixtures

NOBODY = 65534
SECRET = "geheim-5aaf"  # noqa: S105
DENIED = ("environ", "maps", "smaps", "fd", "mem", "stack", "syscall", "io", "auxv", "pagemap", "root", "cwd", "exe")
"""Of /proc/PID."""


class Exposed(NamedTuple):
    daemon: Daemon
    top: Path
    open_port: int
    closed_port: int


@pytest.fixture
def exposed(
    make_daemon: MakeDaemon,
    pins: Path,  # noqa: F811
    cgroup: Cgroup,
    eat: Eat,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Exposed]:
    """A daemon with an output file, spool, ledger, metrics and secrets, which has recorded a kill."""
    if IN_VM:
        not_applicable("the guest has neither curl nor prometheus_client")
    top = Path(tempfile.mkdtemp(prefix="oomtrace-unprivileged-"))
    top.chmod(0o755)  # world-accessible: the files' own modes must protect them
    monkeypatch.setenv("SCRAPER", SECRET)
    token = top / "token"
    token.write_text(SECRET)
    token.chmod(0o600)
    ports = free_port(), free_port()
    try:
        daemon = make_daemon(
            top / "records.json",
            pins=pins,
            arguments=[
                *("--metrics", f"127.0.0.1:{ports[0]}"),
                *("--metrics", f"127.0.0.1:{ports[1]}?token-env=SCRAPER"),
                *("--output", f"http://127.0.0.1:{free_port()}/{SECRET}?token-file={token}"),
                *("--redact", SECRET),
            ],
        )
        daemon.wait_ready()
        eat(16, cgroup.child(f"docker-{'5a' * 32}.scope", 8), extra=[SECRET]).die()
        daemon.wait_for("oom_kill")
        wait_until("lines in the spool", lambda: list(top.rglob("*spool*/**/*")) or list(top.glob("*.state/**/*")))
        yield Exposed(daemon, top, *ports)
        daemon.stop()
    finally:
        shutil.rmtree(top)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def nobody(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as user nobody, without groups and capabilities."""
    drop = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs"]
    return subprocess.run([*drop, *command], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


def test_processes(exposed: Exposed) -> None:
    """A user sees that the daemon runs, its start time and size, but not its options, files and secrets."""
    place = f"/proc/{exposed.daemon.process.pid}"
    shown = "".join(
        nobody("cat", f"{place}/{name}").stdout for name in ("cmdline", "status", "stat", "mountinfo", "cgroup")
    )
    assert "VmRSS" in shown
    command_line = nobody("cat", f"{place}/cmdline").stdout
    for hidden in (SECRET, "http", str(exposed.top / "records.json"), "SCRAPER", str(exposed.closed_port)):
        assert hidden not in command_line
    assert SECRET not in shown
    for name in DENIED:
        finished = nobody("ls", f"{place}/fd") if name == "fd" else nobody("head", "-c", "1", f"{place}/{name}")
        assert finished.returncode != 0, name
    for name in ("exe", "cwd", "root"):
        assert nobody("readlink", f"{place}/{name}").returncode != 0, name


def test_files(exposed: Exposed) -> None:
    """Records, spool, ledger and locks are unreadable; sizes and times are visible where the directory allows."""
    made = [path for path in exposed.top.rglob("*") if path.name != "token"]
    assert {path.name for path in made} >= {"records.json", "ledger"}
    for path in made:
        mode = path.lstat().st_mode
        assert not mode & 0o027, f"{path} {stat.filemode(mode)}"
        assert nobody("cat" if path.is_file() else "ls", str(path)).returncode != 0, path
    seen = nobody("stat", "--format", "%s", str(exposed.top / "records.json")).stdout
    assert int(seen) > 0
    assert nobody("stat", str(next(path for path in made if path.name == "ledger"))).returncode != 0


def test_pinned(exposed: Exposed, pins: Path) -> None:  # noqa: F811
    """The pinned capture is not accessible."""
    assert nobody("ls", str(pins)).returncode != 0


def test_port(exposed: Exposed) -> None:
    """The metrics port without a token is readable; the one with a token answers 401."""
    shown = nobody("curl", "-sS", "-m", "10", f"http://127.0.0.1:{exposed.open_port}/metrics").stdout
    assert 'oomtrace_oom_kills_total{scope="memcg"}' in shown
    assert SECRET not in shown
    refused = nobody("curl", "-sS", "-m", "10", f"http://127.0.0.1:{exposed.closed_port}/metrics")
    assert "401" in refused.stdout
    assert "oomtrace_" not in refused.stdout
    listening = nobody("cat", "/proc/net/tcp").stdout
    assert f":{exposed.open_port:04X} 00000000:0000 0A" in listening


def test_who_may(exposed: Exposed) -> None:
    """Root can read what the other tests ask for: it exists."""
    place = Path(f"/proc/{exposed.daemon.process.pid}")
    assert os.readlink(place / "exe")
    assert b"oom_kill" in (exposed.top / "records.json").read_bytes()
