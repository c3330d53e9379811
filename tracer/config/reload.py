# SPDX-License-Identifier: Apache-2.0
"""Reads the configuration again, in a child: what that needs (typer, TOML) would stay in the daemon's memory."""

import os
import signal
import sys

from tracer.base import threads
from tracer.base.errors import TracerError
from tracer.config.options import Options, from_json

PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from ctypes import CDLL; CDLL(None).prctl(1, 9); "  # PR_SET_PDEATHSIG: it ends with the daemon
    "from tracer.cli import main; main()"
)
PYTHON = "/proc/self/exe"
"""sys.executable is what the process calls itself, and that is oomtrace."""
TIMEOUT_S = 20.0
"""On a host without memory it may take long; the ring buffer has room meanwhile."""


def refuse_emptied(old: Options, wanted: Options) -> None:
    """Raises TracerError where the file has lost all settings, or the outputs: one that is being written is so, too.

    What stands in no file is as by default, and nobody who means that empties the file: records would go to stdout,
    and filters, labels and redaction would be gone.
    """
    if old.settings and not wanted.settings:
        what = f"{old.config} has no settings any more"
    elif "output" in old.settings and "output" not in wanted.settings:
        what = f"{old.config} has no output any more"
    else:
        return
    raise TracerError(what, "it goes on as before; to go back to the defaults, restart it")


def read_options(arguments: tuple[str, ...]) -> Options:
    """What ``oomtrace run`` with these arguments would tell the daemon now.

    Raises TracerError where the configuration is wrong, or could not be read in time.
    """
    import subprocess  # most runs never reload

    command = [PYTHON, "-S", "-c", PROGRAM, "run", *arguments, "--print-options"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        child = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
        if child.returncode == 0:
            return from_json(child.stdout)
        said = child.stderr.decode("utf-8", "backslashreplace").strip().rpartition("\n")[2]
    except (OSError, subprocess.TimeoutExpired, ValueError, TypeError) as error:
        said = str(error)
    raise TracerError(said.removeprefix("oomtrace: "), "it goes on as before")


class ConfigReloader:
    """Reads the configuration beside the capture; once that is done the process gets SIGHUP again."""

    def __init__(self) -> None:
        self._found: list[Options | TracerError] = []
        self._is_stale = False
        """Somebody asked for it while it was being read."""
        self.is_busy = False

    def options(self, old: Options) -> Options | None:
        """What was read; None: nothing new, or not yet.

        Raises TracerError where it cannot be used.
        """
        if self.is_busy and not self._found:
            self._is_stale = True
            return None
        if not self.is_busy or self._is_stale:
            self._found, self._is_stale = [], False
            self.is_busy = old.config is not None and threads.start("reload", self._read, old.arguments) is not None
            return None
        self.is_busy, found = False, self._found.pop()
        if isinstance(found, TracerError):
            raise found
        refuse_emptied(old, found)
        return found

    def _read(self, arguments: tuple[str, ...]) -> None:
        try:
            self._found.append(read_options(arguments))
        except Exception as error:  # whatever it is, the next time it may be read
            told = error if isinstance(error, TracerError) else TracerError(repr(error), "it goes on as before")
            self._found.append(told)
        os.kill(os.getpid(), signal.SIGHUP)
