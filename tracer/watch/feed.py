# SPDX-License-Identifier: Apache-2.0
"""Where records come from: a pipe, a file that grows, or a tracer of its own -> lines, by a thread."""

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue

import tracer
from tracer.base.errors import TracerError
from tracer.logs.log_file import STDIN, LogFile
from tracer.report.inputs import split_lines

TRACER = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from tracer.cli import main; sys.argv = ['oomtrace', 'run', '--no-keep', '-o', 'stdout']; main()"
)
_STOP_S = 10.0


class RecordFeed:
    """Takes lines on in the background; ``wake`` is called, in that thread, when there are some.

    ``path`` is a file, ``-`` for standard input, or None: ``oomtrace run`` is started, which needs root.  Raises
    TracerError where a file cannot be read, or cannot grow.
    """

    def __init__(self, path: str | None) -> None:
        self.lines: SimpleQueue[bytes] = SimpleQueue()
        self.name = "oomtrace run" if path is None else "standard input" if path == STDIN else path
        self.ended = False
        """Whether nothing more will come."""
        self.exit_code = 0
        """The tracer's, once it has ended."""
        self.said: deque[str] = deque(maxlen=20)
        """What the tracer said on stderr, or why a file could not be read on."""
        self._grown = None if path is None else LogFile(path).follow()
        self._child: subprocess.Popen[bytes] | None = None
        self._wake: Callable[[], None] = lambda: None

    def start(self, wake: Callable[[], None]) -> None:
        """Begin.

        Raises TracerError where no tracer can be started.
        """
        self._wake = wake
        if self._grown is None:
            self._child = _start_tracer()
            threading.Thread(target=self._listen, args=(self._child,), daemon=True).start()
        threading.Thread(target=self._read, daemon=True).start()

    def stop(self) -> None:
        """End the tracer, if there is one, in order."""
        child = self._child
        if child is None:
            return
        if child.poll() is None:
            child.terminate()
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _read(self) -> None:
        try:
            for line in self._source():
                if line.strip():
                    self.lines.put(line)
                    self._wake()
        except TracerError as error:
            self.said.append(f"oomtrace: {error}")
        if self._child is not None:
            self.exit_code = self._child.wait()
        self.ended = True
        self._wake()

    def _source(self) -> Iterable[bytes]:
        if self._grown is not None:
            return split_lines(self._grown)
        assert self._child is not None
        assert self._child.stdout is not None
        return self._child.stdout

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stderr is not None
        for line in child.stderr:
            self.said.append(line.decode("utf-8", "backslashreplace").rstrip())
            self._wake()


def _start_tracer() -> subprocess.Popen[bytes]:
    # Not -m, which would look for modules in the working directory first.
    package_parent = os.path.dirname(os.path.dirname(os.path.abspath(tracer.__file__)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package_parent, *filter(None, sys.path)])}
    command = [sys.executable, "-c", TRACER]
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment)
    except OSError as error:
        raise TracerError(f"cannot run {sys.executable} ({error.strerror})", "run it as root (sudo)") from error
