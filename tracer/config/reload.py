# SPDX-License-Identifier: Apache-2.0
"""Read the configuration again, in a child process: its imports (typer, TOML) would stay in the daemon's memory."""

import os
import signal
import sys

from tracer.base import threads
from tracer.base.errors import TracerError
from tracer.config.options import Options, from_json

PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from ctypes import CDLL; CDLL(None).prctl(1, 9); "  # PR_SET_PDEATHSIG: the child ends with the daemon
    "from tracer.cli import main; main()"
)
UNCHANGED = "the old configuration remains in use"
PYTHON = "/proc/self/exe"
"""sys.executable is derived from the process's name, which is oomtrace."""
TIMEOUT_S = 20.0
"""Long, for hosts that are out of memory; the ring buffer keeps events meanwhile."""


def refuse_emptied(old: Options, new: Options) -> None:
    """Raises TracerError if the file has lost all settings, or the outputs: it may be incompletely written.

    The defaults of an empty file would send records to stdout, without filters, labels and redaction.
    """
    if old.settings and not new.settings:
        what = f"{old.config} no longer has any settings"
    elif "output" in old.settings and "output" not in new.settings:
        what = f"{old.config} no longer has an output"
    else:
        return
    raise TracerError(what, "the old configuration remains in use; restart to use the defaults")


def read_options(arguments: tuple[str, ...]) -> Options:
    """The options that ``oomtrace run`` with these arguments results in now.

    Raises TracerError if the configuration is invalid, or could not be read in time.
    """
    import subprocess  # most daemons never reload

    command = [PYTHON, "-S", "-c", PROGRAM, "run", *arguments, "--print-options"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        child = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
        if child.returncode == 0:
            return from_json(child.stdout)
        reason = child.stderr.decode("utf-8", "backslashreplace").strip().rpartition("\n")[2]
    except (OSError, subprocess.TimeoutExpired, ValueError, TypeError) as error:
        reason = str(error)
    raise TracerError(reason.removeprefix("oomtrace: "), UNCHANGED)


class ConfigReloader:
    """Reads the configuration in a thread, which sends SIGHUP to the process when it has finished."""

    def __init__(self) -> None:
        self._results: list[Options | TracerError] = []
        self._is_stale = False
        """Whether another reload was requested during the current one."""
        self.is_busy = False

    def options(self, old: Options) -> Options | None:
        """Handle SIGHUP: begin to read, or return the new options; None while there are none.

        Raises TracerError if the new configuration cannot be used.
        """
        if self.is_busy and not self._results:
            self._is_stale = True
            return None
        if not self.is_busy or self._is_stale:
            self._results, self._is_stale = [], False
            self.is_busy = old.config is not None and threads.start("reload", self._read, old.arguments) is not None
            return None
        self.is_busy, result = False, self._results.pop()
        if isinstance(result, TracerError):
            raise result
        refuse_emptied(old, result)
        return result

    def _read(self, arguments: tuple[str, ...]) -> None:
        try:
            self._results.append(read_options(arguments))
        except Exception as error:  # any error: the next reload may succeed
            self._results.append(error if isinstance(error, TracerError) else TracerError(repr(error), UNCHANGED))
        os.kill(os.getpid(), signal.SIGHUP)
