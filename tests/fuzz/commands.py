# SPDX-License-Identifier: Apache-2.0
"""Commands on damaged records, logs and configurations: they succeed, or print one line and exit with a code."""

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import orjson

from tests.harness.full_records import FULL
from tests.harness.kernel_log_files import FILES, lines
from tests.harness.records import ROOT, shown
from tracer import cli
from tracer.base.errors import EXIT_FAILED, EXIT_USAGE
from tracer.config.options import from_json
from tracer.config.settings import SETTINGS
from tracer.identity.runtimes import ROOTS, Runtimes
from tracer.watch import detail
from tracer.watch.detail import list_row
from tracer.watch.model import IncidentList
from tracer.why import sources

from .target import Target, mutate

CODES = {0, EXIT_FAILED, EXIT_USAGE}
EDGE = (1 << 64) - 1
EDGES = (0, -1, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 63), -(1 << 64), 10**30)
"""Integers at the limits of 64 bits, the maximum of orjson."""
_VALUES: tuple[Any, ...] = (None, True, False, 1e308, "", "x", "\u202e\x1b]0;", "9" * 400, [], {}, [[]], {"a": {}})
_SOURCE = "<FILE>"
_NAME = "<NAME>"
_ON_RECORDS: tuple[Sequence[str], ...] = (
    ("why", _NAME, "--json", "--records", _SOURCE),
    ("why", _NAME, "--records", _SOURCE),
    ("report", "--format", "md", _SOURCE),
    ("report", "--format", "html", _SOURCE),
    ("parse", _SOURCE),
)
_ON_LOGS: tuple[Sequence[str], ...] = (
    ("parse", _SOURCE),
    ("parse", "--sentence", _SOURCE),
    ("report", "--format", "md", _SOURCE),
    ("why", "hog", "--json", "--log", _SOURCE),
)
_ON_CONFIGURATIONS: tuple[Sequence[str], ...] = (
    ("config", "check", _SOURCE),
    ("config", "show", _SOURCE),
    ("run", "--config", _SOURCE, "--print-options"),
)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="oomtrace-fuzz-")


@contextlib.contextmanager
def _without_this_machine() -> Iterator[None]:
    """Hide other sources of a command: this boot's log, the service's records, the runtimes' files."""
    empty = Path(_folder().name) / "empty"
    empty.touch()
    none = Runtimes([(name, "/nowhere") for name in ROOTS])
    with (
        mock.patch.object(sources, "kmsg", SimpleNamespace(PATH=str(empty))),
        mock.patch.object(sources, "RECORDS", str(empty)),
        mock.patch.object(sources, "JOURNAL", ("no journalctl",)),
        # Reader processes end with the command; here the command does not end a process.
        mock.patch("tracer.commands.why.runtimes", return_value=contextlib.nullcontext(none)),
        mock.patch("tracer.commands.resolve.runtimes", return_value=contextlib.nullcontext(none)),
    ):
        yield


def run_command(words: Sequence[str]) -> tuple[int, bytes, str]:
    """Run a command in this process: exit code, standard output and standard error."""
    out, err = io.BytesIO(), io.BytesIO()
    streams = io.TextIOWrapper(out, "utf-8"), io.TextIOWrapper(err, "utf-8")
    with (
        mock.patch.object(sys, "argv", ["oomtrace", *words]),
        mock.patch.object(sys, "stdout", streams[0]),
        mock.patch.object(sys, "stderr", streams[1]),
        _without_this_machine(),
    ):
        code: Any = None
        try:
            cli.main()
        except SystemExit as error:
            code = error.code or 0
        for stream in streams:
            stream.flush()
    return code, out.getvalue(), err.getvalue().decode()


def _check(words: Sequence[str], content: bytes) -> None:
    path = Path(_folder().name) / "input"
    path.write_bytes(content)
    code, out, err = run_command(
        [str(path) if word == _SOURCE else _name() if word == _NAME else word for word in words]
    )
    assert code in CODES, (code, err)
    assert "Traceback" not in err
    assert code == 0 or err, "a code without a word"
    assert all(line.startswith("oomtrace: ") for line in err.splitlines()), err
    out.decode()  # must be UTF-8
    if "--json" in words or "show" in words:
        assert code != 0 or isinstance(json.loads(out), dict)
    elif words[0] == "parse" and "--sentence" not in words:
        assert all(isinstance(json.loads(line), dict) for line in out.splitlines())
    elif "--print-options" in words and code == 0:
        from_json(out)
    elif "html" in words and code == 0:
        assert out.rstrip().endswith(b"</html>")


def _run(commands: Sequence[Sequence[str]], data: bytes) -> None:
    """The first byte selects the command that gets the rest as its file."""
    _check(commands[(data[:1] or b"\0")[0] % len(commands)], data[1:])


def run_on_records(data: bytes) -> None:
    _run(_ON_RECORDS, data)


def run_on_logs(data: bytes) -> None:
    _run(_ON_LOGS, data)


def run_on_configurations(data: bytes) -> None:
    _run(_ON_CONFIGURATIONS, data)


@cache
def _name() -> str:
    return str(shown()["container"]["name"])


@cache
def _records() -> bytes:
    kill = shown()
    boot = kill["host"]
    others = [{**FULL[name], "host": boot} for name in ("start", "sigkill", "lost", "gap", "stop")]
    for each in others[1:2]:
        each["container"] = each["victim"] and kill["container"]
    gone = {**FULL["oom_exit"], "host": boot, "id": kill["id"], "incident_id": kill["incident"]["id"]}
    return b"".join(json.dumps(each).encode() + b"\n" for each in (others[0], kill, gone, *others[1:]))


def record_seeds() -> list[bytes]:
    """Values whose sums exceed 64 bits."""
    largest = b"".join(json.dumps(_largest(json.loads(line))).encode() + b"\n" for line in _records().splitlines())
    least = largest.replace(b"%d" % EDGE, b"%d" % -(1 << 63))
    return [bytes([kind]) + each for kind in range(len(_ON_RECORDS)) for each in (_records(), largest, least)]


def _largest(value: Any) -> Any:
    """The value with the largest integer in place of each integer."""
    if isinstance(value, dict):
        return {name: _largest(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_largest(each) for each in value]
    return EDGE if type(value) is int else value


def mutate_records(data: bytes, random: Random) -> bytes:
    return data[:1] + mutate_lines(data[1:], random)


def mutate_lines(data: bytes, random: Random) -> bytes:
    """Mostly replace one value of one record by another JSON value."""
    found = data.split(b"\n")
    if random.randrange(4) == 0:
        return mutate(data, random)
    place = random.randrange(len(found))
    with contextlib.suppress(ValueError, RecursionError):
        found[place] = json.dumps(_changed(json.loads(found[place]), random)).encode()
    return b"\n".join(found)


def _changed(value: Any, random: Random) -> Any:
    if isinstance(value, dict) and value and random.randrange(8):
        key = random.choice(list(value))
        return {**value, key: _changed(value[key], random)}
    if isinstance(value, list) and value and random.randrange(4):
        place = random.randrange(len(value))
        return [*value[:place], _changed(value[place], random), *value[place + 1 :]]
    if isinstance(value, int) and random.randrange(4):
        return random.choice(EDGES)
    return random.choice((*_VALUES, *EDGES))


def log_seeds() -> list[bytes]:
    logs = [b"\n".join(line.text for line in lines(log))[:8192] for log in list(FILES.values())[::6]]
    stamped = [
        b"".join(b"[%5d.000001] %s\n" % (100 + n, text) for n, text in enumerate(log.split(b"\n"))) for log in logs
    ]
    return [bytes([number % len(_ON_LOGS)]) + log for number, log in enumerate(stamped)]


def configuration_seeds() -> list[bytes]:
    texts = [(ROOT / "deploy" / "config.toml").read_text(), "", "\n".join(f"{name} = 1" for name in SETTINGS)]
    texts += ['output = ["file:/x", "stdout"]\nmetrics = ["9814?token-env=A", "file:/x.prom"]\nlabel = {a = "b"}\n']
    texts += ['redact = ["x(y)"]\nmax-record = 8000\n[only]\ncomm = ["a*"]\n[[output]]\nuri = "https://h/?gzip=yes"\n']
    return [bytes([kind]) + text.encode() for kind in range(len(_ON_CONFIGURATIONS)) for text in texts]


def run_watch(data: bytes) -> None:
    """The watch's view of lines: every incident in full, and any search."""
    model = IncidentList()
    for line in data.split(b"\n"):
        model.take(line)
    for shown_ in model.shown:
        assert list_row(shown_.incident)
        assert list(detail.detail_lines(shown_.incident))
    model.filter("web")


def run_resolve(data: bytes) -> None:
    """Resolving cgroups with any name."""
    path = "/" + os.fsdecode(data.replace(b"\0", b"")[:2000])
    code, out, err = run_command(("resolve", "--json", path))
    assert code in CODES
    assert "Traceback" not in err
    assert code != 0 or orjson.loads(out)["cgroup"]


def resolve_seeds() -> list[bytes]:
    return [f"docker/{'5a' * 32}".encode(), b"sys/fs/cgroup/memory/a", b"kubepods/podx/y", b"proc/self", b"\xff/\x1b"]


COMMANDS = (
    Target("commands_records", run_on_records, record_seeds, mutate_records, 40),
    Target("watch", run_watch, lambda: [_records()], mutate_lines),
    Target("commands_logs", run_on_logs, log_seeds, changes=40),
    Target("commands_config", run_on_configurations, configuration_seeds, changes=60),
    Target("commands_resolve", run_resolve, resolve_seeds, changes=60),
)
