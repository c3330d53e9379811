# SPDX-License-Identifier: Apache-2.0
"""``oomtrace watch`` in a terminal, with real kills."""

import gzip
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.environment import ROOT, START_TIMEOUT_S, TIMEOUT_S, require, wait_until
from tests.harness.vanishing import processes_below
from tests.kernel.conftest import Eat
from tests.unit.report.test_report import hostile_records
from tracer.base.errors import EXIT_FAILED, EXIT_UNSUPPORTED, EXIT_USAGE

from .conftest import write
from .samples import HOSTILE, Record, many
from .terminal import Terminal

WATCH = [sys.executable, "-m", "tracer", "watch"]

SSHD = Path("/usr/sbin/sshd")

MakeTerminal = Callable[..., Terminal]


@pytest.fixture
def terminal() -> Iterator[MakeTerminal]:
    """Makes terminals, which are closed after the test."""
    made: list[Terminal] = []

    def make(command: object, columns: int = 100, lines: int = 40, **environment: str) -> Terminal:
        made.append(Terminal(command, columns, lines, **environment))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_own_tracer(terminal: MakeTerminal, cgroup: Cgroup, eat: Eat) -> None:
    """The watch starts a daemon, shows kills live, adapts to the terminal's size, and stops the daemon on q."""
    window = terminal(WATCH)
    window.wait_for("bpf", 6 * START_TIMEOUT_S)
    running = processes_below(window.pid)
    assert len(running) >= 2, "the watch and its daemon"
    window.keys("/", f"oomtrace-test-{os.getpid()}", "Enter")  # other processes may be killed meanwhile
    eat(32, cgroup.child("first", 16), comm="first-eater").die()
    window.wait_for(r"first-eater.*16\.0 MiB")
    eat(32, cgroup.child("second", 16), comm="second-eater").die()
    screen = window.wait_for(r"│[^│]*second-eater[^│]*│\n│[^│]*first-eater")
    assert "2 shown" in screen
    assert "The kernel killed second-eater" in screen, "the newest is selected"
    window.wait_for(r"gone +after [\d.]+ ms")
    window.keys("Down")
    window.wait_for("The kernel killed first-eater")
    window.resize(160, 30)
    screen = window.wait_for(r"┌─+ Incidents ─+┐┌─+ Incident ─+┐")
    assert "The kernel killed first-eater" in screen
    window.resize(50, 16)
    screen = window.wait_for(r"┌─+ Incidents ─+┐\n")
    assert max(map(len, screen.splitlines())) <= 50
    assert not window.wants_mouse()
    eat(32, cgroup.child("third", 16), comm="third-eater").die()
    window.wait_for("third-eater")
    window.wait_for("The kernel killed first-eater")
    window.keys("Home")
    window.wait_for("The kernel killed third-eater")
    window.keys("q")
    assert window.status() == 0
    wait_until("all processes have exited", lambda: not any(Path(f"/proc/{pid}").exists() for pid in running))


def test_hang_up(terminal: MakeTerminal) -> None:
    """After a hangup no process is left behind."""
    window = terminal(WATCH)
    window.wait_for("bpf", 6 * START_TIMEOUT_S)
    running = processes_below(window.pid)
    window.hang_up()
    wait_until("all processes have exited", lambda: not any(Path(f"/proc/{pid}").exists() for pid in running))


def test_file_that_grows(terminal: MakeTerminal, tmp_path: Path, bases: list[Record]) -> None:
    """Records appended to a file are shown, also after rotation; bad lines are counted; the filter works."""
    records = list(many(bases, 60))
    path = write(tmp_path / "oom.json", records[:40])
    window = terminal([*WATCH, str(path)])
    window.wait_for(r"40 incidents  40 victims +/")
    with path.open("a") as file:
        file.write("no record\n" + json.dumps(records[40]) + "\n")
    window.wait_for(r"41 incidents  41 victims  1 bad lines")
    path.rename(tmp_path / "oom.json.1")
    write(path, records[41:])
    window.wait_for("60 incidents")
    window.keys("/")
    window.wait_for("filter:")
    window.keys("n", "o", "d", "e", "-", "3")
    expected = sum(record["host"]["name"] == "node-3" for record in records)
    window.wait_for(rf"{expected} shown")
    window.keys("q")
    window.wait_for("0 shown")
    window.keys("BSpace", "Enter")
    screen = window.wait_for(rf"{expected} shown")
    assert "filter: node-3" in screen
    window.keys("End")
    (oldest, *_) = [record for record in records if record["host"]["name"] == "node-3"]
    window.wait_for(re.escape(oldest["time"]))
    window.keys("/", "Escape")
    window.wait_for(r"60 incidents  60 victims  1 bad")
    window.keys("Tab", "q")
    assert window.status() == 0


def test_pipe(terminal: MakeTerminal, tmp_path: Path, bases: list[Record]) -> None:
    """Records from a pipe, keys from the terminal; the end of the input is shown."""
    path = write(tmp_path / "oom.json", many(bases, 25))
    window = terminal(f"cat {shlex.quote(str(path))} | {shlex.join(WATCH)}")
    window.wait_for(r"25 incidents.*ended +standard input")
    window.keys("q")
    assert window.status() == 0


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[list[str]]:
    """A command that executes another command in a terminal through sshd, with temporary keys."""
    require(SSHD.exists() and shutil.which("ssh"), "openssh-server and openssh-client")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True, timeout=60)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {tmp_path}/user.pub\nPermitRootLogin yes\nPasswordAuthentication no\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=subprocess.DEVNULL) as server:
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "IdentityAgent=none"]
        command = ["ssh", "-F", "none", "-p", str(port), "-i", str(tmp_path / "user")]
        command += [word for option in options for word in ("-o", option)]
        wait_until(
            "sshd answers",
            lambda: (
                subprocess.run([*command, "root@127.0.0.1", "true"], capture_output=True, timeout=30).returncode == 0
            ),
            6 * TIMEOUT_S,
        )
        yield [*command, "-t", "root@127.0.0.1"]
        server.terminate()


def test_over_ssh(terminal: MakeTerminal, ssh: list[str], tmp_path: Path, bases: list[Record]) -> None:
    """Through ssh, updates, resizing and keys work."""
    records = list(many(bases, 30))
    path = write(tmp_path / "oom.json", records[:20])
    window = terminal([*ssh, f"cd {shlex.quote(str(ROOT))} && {shlex.join([*WATCH, str(path)])}"], LC_ALL="C")
    window.wait_for("20 incidents", 6 * TIMEOUT_S)
    with path.open("a") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records[20:]))
    window.wait_for("30 incidents")
    window.resize(140, 30)
    window.wait_for(r"(?m)^.+ Incidents .+ Incident .+$")
    window.keys("End")
    window.wait_for(re.escape(records[0]["time"]))
    window.keys("q")
    assert window.status() == 0


@pytest.mark.parametrize("plain", [False, True])
def test_colors(terminal: MakeTerminal, tmp_path: Path, bases: list[Record], plain: bool) -> None:
    """With 16 colours, and without any (NO_COLOR), the selection is visible."""
    path = write(tmp_path / "oom.json", [record for record in bases if record["candidates"]][:5])
    window = terminal([*WATCH, str(path)], **({"NO_COLOR": "1"} if plain else {}))
    window.wait_for("Candidates")
    codes = {code for found in re.findall(r"\x1b\[([\d;]*)m", window.screen(styles=True)) for code in found.split(";")}
    colors = {int(code) for code in codes if code and int(code) not in (0, 1, 7, 22, 27, 39, 49)}
    if plain:
        assert (colors, "7" in codes) == (set(), True)
    else:
        assert colors
        assert all(color % 10 < 8 and color // 10 in (3, 4, 9, 10) for color in colors), colors


def test_hostile_names(terminal: MakeTerminal, tmp_path: Path) -> None:
    """Hostile names: no control character reaches the terminal, and the screen is intact."""
    path = write(tmp_path / "oom.json", hostile_records())
    window = terminal([*WATCH, str(path)])
    screen = window.wait_for(rf"{len(HOSTILE)} incidents")
    for _ in HOSTILE:
        window.keys("Down")
    window.wait_for("</script>")
    screen = window.screen()
    assert "\u202e" not in screen
    assert all(line[0] in "┌│└" and line[-1] in "┐│┘" for line in screen.splitlines()[1:-1])
    assert "31" not in re.findall(r"\x1b\[(\d+)m", window.screen(styles=True))


def test_not_allowed(terminal: MakeTerminal) -> None:
    """If the daemon cannot start, its error is shown, and its exit code returned."""
    window = terminal(["setpriv", "--bounding-set=-all", "--inh-caps=-all", *WATCH])
    assert window.status() == EXIT_UNSUPPORTED
    assert re.search(r"oomtrace: .*(root|CAP_)", window.screen().replace("\n", ""))


def refused(*arguments: str, prefix: str = "") -> tuple[int, str]:
    program = f"import sys; {prefix}sys.argv[1:] = {list(arguments)!r}; from tracer.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == ""
    assert re.fullmatch(r"oomtrace: [^\n]+\n", done.stderr)
    return done.returncode, done.stderr


def test_no_terminal() -> None:
    """Without a terminal the command prints an error."""
    code, message = refused("watch", os.devnull)
    assert (code, "terminal" in message) == (EXIT_USAGE, True)


def test_no_urwid() -> None:
    """Without urwid the error names the package to install."""
    code, message = refused("watch", prefix="sys.modules['urwid'] = None; ")
    assert (code, "pipx inject oomtrace urwid" in message) == (EXIT_UNSUPPORTED, True)


def test_no_file(terminal: MakeTerminal, tmp_path: Path) -> None:
    """A missing file, and a file that cannot grow."""
    (tmp_path / "oom.json.gz").write_bytes(gzip.compress(b""))
    for name, message in (("none", "cannot read"), ("oom.json.gz", "cannot grow")):
        window = terminal([*WATCH, str(tmp_path / name)])
        assert window.status() == EXIT_FAILED
        assert message in window.screen()
