# SPDX-License-Identifier: Apache-2.0
"""The promises of docs/security.md: their tests exist, and no code executes its input."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tracer
from tests.harness import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
PACKAGE = Path(tracer.__file__).parent
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
DANGEROUS_CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "getoutput", "getstatusoutput"}
DANGEROUS_MODULES = {"pickle", "marshal", "shelve", "code", "codeop", "runpy", "pty", "xml", "yaml", "http", "urllib"}
MAY_IMPORT = {"config.toml_file": {"urllib"}, "delivery.sinks.http_client": {"http"}}
"""Modules that parse and build URIs; the last one is an HTTP client."""
STARTS = {
    "subprocess",
    "posix_spawn",
    "posix_spawnp",
    "fork",
    "forkpty",
    "execv",
    "execve",
    "execvp",
    "execl",
    "spawnv",
}
"""Functions that start a program or a process."""
STARTERS = {
    "capture.engine_bcc",
    "commands.run",
    "config.reload",
    "doctor.checks",
    "logs.log_file",
    "reading.reader_processes",
    "watch.feed",
    "why.sources",
}
"""The engine whose child compiles, the command, a reload, the doctor, zstd, readers, the watch's own tracer, and
journalctl."""
LISTENS = {"listen", "accept", "create_server"}
LISTENERS = {"delivery.metrics_server"}
"""Only used with ``--metrics HOST:PORT``."""
COMPILES = {("re", "compile")}


def promises() -> list[tuple[str, str]]:
    """Rows of the page's tables with tests: a promise, and its test."""
    rows = [row.strip("|").split("|") for row in PAGE.splitlines() if row.startswith("|") and "::" in row]
    return [(said.strip(), test) for said, *_, tests in rows for test in re.findall(r"`([\w/.]+::\w+)`", tests)]


@pytest.mark.parametrize(("said", "test"), promises())
def test_promise_has_a_test(said: str, test: str) -> None:
    """Tests in the page exist."""
    file, _, name = test.partition("::")
    functions = {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert name in functions, said


def test_every_promise_names_a_test() -> None:
    """Each promise in the tables has a test, and tests in the text exist."""
    tables = re.findall(r"\| a (?:container|user) cannot \| tests \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE)
    assert len(tables) == 2
    for row in "".join(tables).splitlines():
        assert "::" in row, row
    for file, name in re.findall(r"`(tests/[\w/.]+)::(\w+)`", PAGE):
        assert f"def {name}(" in (ROOT / file).read_text()


def test_everything_that_is_read_names_a_test() -> None:
    """Each row of inputs has a bound, or the reason why it needs none."""
    (table,) = re.findall(r"\| what is read or written \| .*\n\|(?:---\|)+\n((?:\|.*\n)+)", PAGE)
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    assert len(rows) >= 19
    for row in rows:
        assert len(row) == 5, row
        assert all(row), row
        assert re.search(r"`tests/[\w/.]+::\w+`", row[4]), row


def calls(module: str) -> Iterator[tuple[ast.Call, str, str]]:
    """Every call in a module: the node, the object of the function, and its name."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Call):
            function = node.func
            owner = (
                function.value.id
                if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)
                else ""
            )
            yield node, owner, getattr(function, "attr", getattr(function, "id", ""))


def imported(module: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(MODULES[module].read_text())))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in found}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_runs_what_it_reads(module: str) -> None:
    """No shell and no code made from data; few modules start programs, with lists of arguments."""
    assert imported(module).isdisjoint(DANGEROUS_MODULES - MAY_IMPORT.get(module, set()))
    for node, owner, name in calls(module):
        assert name not in DANGEROUS_CALLS or (owner, name) in COMPILES, f"line {node.lineno}: {name}"
        assert not any(keyword.arg == "shell" for keyword in node.keywords), f"line {node.lineno}: shell"
        assert (owner not in STARTS and name not in STARTS) or module in STARTERS, f"line {node.lineno}: {owner}.{name}"
    assert "subprocess" not in imported(module) or module in STARTERS


@pytest.mark.parametrize("module", MODULES)
def test_no_listener(module: str) -> None:
    """No module listens, except for metrics."""
    assert module in LISTENERS or not [name for _, _, name in calls(module) if name in LISTENS]


def test_folders_of_the_service() -> None:
    """Directories of the unit are not world-readable, and it cannot gain privileges."""
    unit = (ROOT / "deploy" / "oomtrace.service").read_text().splitlines()
    assert {"StateDirectoryMode=0750", "LogsDirectoryMode=0750", "UMask=0027", "NoNewPrivileges=yes"} <= set(unit)


def test_seen_if_it_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two tests above detect violations."""
    bad = tmp_path / "bad.py"
    monkeypatch.setitem(MODULES, "bad", bad)
    for line in (
        "eval('1')",
        "import pickle",
        "subprocess.run('x', shell=True)",
        "os.system('x')",
        "os.execve('x', [], {})",
    ):
        bad.write_text(line)
        with pytest.raises(AssertionError):
            test_nothing_runs_what_it_reads("bad")
    bad.write_text("server.listen(5)")
    with pytest.raises(AssertionError):
        test_no_listener("bad")
