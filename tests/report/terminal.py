# SPDX-License-Identifier: Apache-2.0
"""A terminal of tmux, with its own server."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from tests.harness.environment import ROOT, TIMEOUT_S, attempts, require

_STATUS = re.compile(r"^status (\d+)$", re.MULTILINE)


class Terminal:
    """Runs one command, a shell's or a list, and shows its exit code at the end."""

    def __init__(self, command: str | Sequence[str], columns: int = 100, lines: int = 40, **environment: str) -> None:
        require(shutil.which("tmux"), "tmux")
        self._socket = f"oomtrace-{os.getpid()}-{id(self)}"
        shown = command if isinstance(command, str) else shlex.join(command)
        script = f"cd {shlex.quote(str(ROOT))}; {shown}; echo status $?; read _ || sleep 60"
        cleared = {name: value for name, value in os.environ.items() if name not in ("TMUX", "NO_COLOR")}
        self._environment = {**cleared, "LC_ALL": "C.UTF-8", **environment}
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), "sh", "-c", script)
        self.pid = int(self._tmux("display-message", "-p", "#{pane_pid}"))

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-u", "-L", self._socket, *arguments]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=20, env=self._environment, errors="replace"
        )
        return done.stdout

    def keys(self, *keys: str) -> None:
        """Press keys, by tmux's names (``Down``, ``Enter``), or letters."""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def screen(self, styles: bool = False) -> str:
        """The text on the screen."""
        return self._tmux("capture-pane", "-p", *(["-e"] if styles else []))

    def wants_mouse(self) -> bool:
        return self._tmux("display-message", "-p", "#{mouse_any_flag}").strip() != "0"

    def wait_for(self, pattern: str, seconds: float = 3 * TIMEOUT_S) -> str:
        """Wait until the screen matches; the screen."""
        for _ in attempts(seconds, 0.1):
            screen = self.screen()
            if re.search(pattern, screen):
                return screen
        raise AssertionError(f"not within {seconds:.0f} s: {pattern!r}; the screen shows\n{screen}")

    def status(self) -> int:
        """Wait for the command's exit code."""
        match = _STATUS.search(self.wait_for(_STATUS.pattern.replace("^", "(?m)^")))
        assert match is not None
        return int(match[1])

    def hang_up(self) -> None:
        """Hang up, as when an ssh connection is lost."""
        self._tmux("kill-session")

    def close(self) -> None:
        """Kill the server."""
        subprocess.run(["tmux", "-L", self._socket, "kill-server"], capture_output=True, timeout=20, check=False)
