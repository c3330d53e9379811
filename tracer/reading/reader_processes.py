# SPDX-License-Identifier: Apache-2.0
"""Processes that read what others can make hang: /proc of other processes, files of runtimes and of users.

A user who holds back a page of a FUSE file holds the mmap_lock that a reader of /proc/PID/cmdline waits for, and no
signal ends a request that a FUSE server has accepted before the server answers (request_wait_answer(), fs/fuse/dev.c).
A process that waits there in any of its threads can neither exit nor be replaced. Therefore each such read is made by a
process of its own, which is killed at its timeout and for whose exit nothing waits.

These processes are forked by one that reads nothing, and that was itself forked before the daemon had threads,
descriptors and locks: a reader that never exits holds nothing that is needed elsewhere.
"""

import contextlib
import ctypes
import errno
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import orjson

from tracer.linux import privileges
from tracer.linux.safe_files import UnreadableError

T = TypeVar("T")

GIVEN_UP_MAX = 16
"""At most so many readers that were given up may hang; with more, nothing is read until one exits."""
IDLE_MAX = 2
"""At most so many readers wait for the next request."""

_PR_SET_PDEATHSIG = 1
_RECEIVE_BYTES = 1 << 16
_FORK = b"fork"
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)
"""A service manager and a terminal send the first three to all processes: readers exit with their parent instead."""


class ReadTimeoutError(UnreadableError):
    """The read timed out."""

    def __init__(self, text: str, has_ended: Callable[[], bool] = lambda: True) -> None:
        super().__init__(text)
        self.has_ended = has_ended
        """Whether the process that was given up has exited: its source can be read again without another one to hang.
        """


class _Reader(NamedTuple):
    pid: int
    asked: socket.socket


class ReaderPool:
    """Reads by processes of its own; to be created before there are threads, then usable by any thread.

    A reader can call ``functions``, whose arguments and results are JSON, and keeps only ``capabilities`` (None: all).
    """

    def __init__(self, functions: Iterable[Callable[..., Any]], capabilities: Sequence[int] | None = None) -> None:
        self._lock = threading.Lock()
        """Held for a moment only."""
        self._forks = threading.Lock()
        """Held while waiting for a new reader."""
        self._idle: list[_Reader] = []
        self._given_up: list[socket.socket] = []
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        if os.fork():
            theirs.close()
            return
        try:
            requests = _let_go(theirs, parent, "oomtrace-fork")
            if capabilities is not None:
                with contextlib.suppress(OSError):
                    privileges.keep_capabilities(*capabilities)
            _fork_readers(requests, {_name(function): function for function in functions})
        finally:
            os._exit(0)

    def __del__(self) -> None:
        """Idle readers exit when their socket is closed; those that hang were killed."""
        self.close()

    def ask(self, timeout_s: float, function: Callable[..., T], *arguments: object) -> T:
        """What ``function`` returns in a reader.

        Raises ReadTimeoutError if the call exceeds ``timeout_s``, UnreadableError if the function raises or no reader
        can be started.
        """
        question, until_s = orjson.dumps([_name(function), *arguments]) + b"\n", time.monotonic() + timeout_s
        try:
            reader = self._take(until_s)
            answer = _answer(reader, question, until_s)
            if not answer:  # it was killed, perhaps long ago
                reader = self._start(until_s)
                answer = _answer(reader, question, until_s)
        except TimeoutError:
            self._give_up(reader)
            raise ReadTimeoutError(f"no answer within {timeout_s:g} s", partial(_has_ended, reader.asked)) from None
        except OSError as error:
            raise UnreadableError(f"no process can be started to read it ({error.strerror or error})") from error
        if not answer:
            raise UnreadableError("the process that reads it was ended")
        self._put_back(reader)
        wrong, value = orjson.loads(answer)
        if wrong is not None:
            raise UnreadableError(wrong)
        result: T = value
        return result

    def close(self) -> None:
        """End all readers, as the exit of this process does."""
        with self._lock:
            self._requests.close()
            for asked in (*(reader.asked for reader in self._idle), *self._given_up):
                asked.close()
            self._idle, self._given_up = [], []

    def _take(self, until_s: float) -> _Reader:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._start(until_s)

    def _put_back(self, reader: _Reader) -> None:
        with self._lock:
            if len(self._idle) < IDLE_MAX:
                self._idle.append(reader)
                return
        reader.asked.close()

    def _start(self, until_s: float) -> _Reader:
        """Raises OSError if no process can be started, or not in time, UnreadableError if too many readers hang."""
        with self._lock:
            self._given_up = [each for each in self._given_up if not _has_ended(each)]
            if len(self._given_up) >= GIVEN_UP_MAX:
                raise UnreadableError(f"{GIVEN_UP_MAX} readers hang")
        if not self._forks.acquire(timeout=max(0.0, until_s - time.monotonic())):
            raise OSError(errno.EAGAIN, "it takes too long")
        try:
            self._requests.settimeout(max(0.001, until_s - time.monotonic()))
            self._requests.send(_FORK)
            answer, descriptors, _, _ = socket.recv_fds(self._requests, 16, 1)
        except TimeoutError as error:
            raise OSError(errno.EAGAIN, "it takes too long") from error
        finally:
            self._forks.release()
        if not descriptors:
            raise OSError(int(answer or errno.ECHILD), os.strerror(int(answer or errno.ECHILD)))
        return _Reader(int(answer), socket.socket(fileno=descriptors[0]))

    def _give_up(self, reader: _Reader) -> None:
        """Kill a reader, without waiting for its exit."""
        with self._lock:
            if not _has_ended(reader.asked):
                self._given_up.append(reader.asked)
                with contextlib.suppress(OSError):
                    self._requests.send(b"%d" % reader.pid)


def _answer(reader: _Reader, question: bytes, until_s: float) -> bytes:
    """The reader's answer, one line; empty if the reader has exited. Raises TimeoutError."""
    parts = [b""]
    try:
        reader.asked.settimeout(max(0.001, until_s - time.monotonic()))
        reader.asked.sendall(question)
        while not parts[-1].endswith(b"\n"):
            reader.asked.settimeout(max(0.001, until_s - time.monotonic()))
            parts.append(reader.asked.recv(_RECEIVE_BYTES))
            if not parts[-1]:
                break
        else:
            return b"".join(parts)
    except (BrokenPipeError, ConnectionResetError):
        pass
    reader.asked.close()
    return b""


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _has_ended(asked: socket.socket) -> bool:
    """Whether the process at the other end has exited: no other process has that end open."""
    try:
        asked.settimeout(0)
        while asked.recv(_RECEIVE_BYTES):
            pass
    except BlockingIOError:
        return False
    except OSError:  # closed earlier
        pass
    asked.close()
    return True


def _let_go(kept: socket.socket, parent: int, name: str) -> socket.socket:
    """Close all descriptors but this socket, and exit when the parent does."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write(name)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.dup2(kept.detach(), 3, inheritable=False)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 3:
            with contextlib.suppress(OSError):  # the descriptor of the listing
                os.close(descriptor)
    return socket.socket(fileno=3)


def _fork_readers(requests: socket.socket, functions: Mapping[str, Callable[..., Any]]) -> None:
    """Fork or kill readers on request, until no requester is left."""
    own = os.getpid()
    gc.disable()
    while request := requests.recv(16):
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if request != _FORK:  # the pid of a process that has exited is not reused before waitpid()
            with contextlib.suppress(OSError):
                os.kill(int(request), signal.SIGKILL)
            continue
        try:
            ours, theirs = socket.socketpair()
            pid = os.fork()
        except OSError as error:
            requests.send(b"%d" % (error.errno or errno.EAGAIN))
            continue
        if pid == 0:
            try:
                _answer_forever(_let_go(ours, own, "oomtrace-read"), functions)
            finally:
                os._exit(0)
        ours.close()
        socket.send_fds(requests, [b"%d" % pid], [theirs.fileno()])
        theirs.close()


def _answer_forever(asker: socket.socket, functions: Mapping[str, Callable[..., Any]]) -> None:
    gc.enable()
    with asker.makefile("rb") as questions:
        for question in questions:
            name, *arguments = orjson.loads(question)
            try:
                answer = orjson.dumps([None, functions[name](*arguments)])
            except Exception as error:
                answer = orjson.dumps([(str(error) or repr(error)).encode("utf-8", "backslashreplace").decode(), None])
            asker.sendall(answer + b"\n")
