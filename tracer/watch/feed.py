# SPDX-License-Identifier: Apache-2.0
"""Reads lines of records in a thread, from a pipe, from a growing file, or from a tracer that it starts."""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue

import tracer
from tracer.base import threads
from tracer.base.errors import TracerError
from tracer.logs.log_file import STDIN, LogFile
from tracer.report.inputs import split_lines

_TRACER_CODE = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from tracer.cli import main; sys.argv = ['oomtrace', 'run', '--no-keep', '-o', 'stdout']; main()"
)
_STOP_TIMEOUT_S = 10.0


class RecordFeed:
    """Reads lines in the background; ``wake`` is called in the reading thread when lines are available.

    ``path`` is a file, ``-`` for standard input, or None: ``oomtrace run`` is started, which needs root.

    Raises TracerError if the file cannot be read or followed.
    """

    def __init__(self, path: str | None) -> None:
        self.lines: SimpleQueue[bytes] = SimpleQueue()
        self.name = "oomtrace run" if path is None else "standard input" if path == STDIN else path
        self.ended = False
        """Whether the source has ended."""
        self.exit_code = 0
        """Exit code of the tracer, once it has ended."""
        self.messages: deque[str] = deque(maxlen=20)
        """Messages of the tracer on stderr, or the error that ended the reading."""
        self._file_blocks = None if path is None else LogFile(path).follow()
        self._child: subprocess.Popen[bytes] | None = None
        self._wake: Callable[[], None] = lambda: None

    def start(self, wake: Callable[[], None]) -> None:
        """Start the threads and, without a source, the tracer.

        Raises TracerError if one of them cannot be started.
        """
        self._wake = wake
        if self._file_blocks is None:
            self._child = _start_tracer()
            threads.start_required("messages", self._read_messages, self._child)
        threads.start_required("records", self._read_lines)

    def stop(self) -> None:
        """Terminate the tracer, if one was started; kill it after 10 s."""
        child = self._child
        if child is None:
            return
        if child.poll() is None:
            child.terminate()
        try:
            child.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _read_lines(self) -> None:
        try:
            for line in self._open_source():
                if line.strip():
                    self.lines.put(line)
                    self._wake()
        except TracerError as error:
            self.messages.append(f"oomtrace: {error}")
        if self._child is not None:
            self.exit_code = self._child.wait()
        self.ended = True
        self._wake()

    def _open_source(self) -> Iterable[bytes]:
        if self._file_blocks is not None:
            return split_lines(self._file_blocks)
        assert self._child is not None
        assert self._child.stdout is not None
        return self._child.stdout

    def _read_messages(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stderr is not None
        for line in child.stderr:
            self.messages.append(line.decode("utf-8", "backslashreplace").rstrip())
            self._wake()


def _start_tracer() -> subprocess.Popen[bytes]:
    # Not -m: it would import modules from the working directory.
    package_parent = os.path.dirname(os.path.dirname(os.path.abspath(tracer.__file__)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package_parent, *filter(None, sys.path)])}
    command = [sys.executable, "-c", _TRACER_CODE]
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment)
    except OSError as error:
        raise TracerError(f"cannot run {sys.executable} ({error.strerror})", "run it as root (sudo)") from error
