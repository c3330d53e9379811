# SPDX-License-Identifier: Apache-2.0
"""toml_file.py, settings.py: a file sets the same options as the command line, and errors name the line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.environment import ROOT
from tracer.base.errors import EXIT_FAILED, EXIT_USAGE, TracerError
from tracer.commands.config import check
from tracer.config.options import Options, from_json, to_json
from tracer.config.settings import SETTINGS, make_options
from tracer.config.toml_file import ConfigFile

FILE = r"""
engine = "core"
max-record = 8000
redact = ['order-(\d+)']

[label]
cluster = "eu-1"

[except]
scope = "sysrq"
namespace = ["kube-*", "x"]

[[output]]
uri = "file:/tmp/a b?name=x"
style = "flat"
types = ["oom_kill", "oom_exit"]
spool-bytes = "1M"

[[output]]
uri = "stdout"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(FILE)
    return tmp_path / "config.toml"


def test_options(path: Path) -> None:
    """All settings are read; options of an output become part of its URI."""
    assert ConfigFile(str(path)).options({}, ("--config", str(path))) == Options(
        arguments=("--config", str(path)),
        config=str(path),
        engine="core",
        outputs=("file:/tmp/a b?name=x&style=flat&types=oom_kill,oom_exit&spool-bytes=1M", "stdout"),
        labels=(("cluster", "eu-1"),),
        max_record_bytes=8000,
        redact=(r"order-(\d+)",),
        exclude=(("scope", "sysrq"), ("namespace", "kube-*"), ("namespace", "x")),
    )


def test_command_line_comes_first(path: Path) -> None:
    """Given settings take precedence over the file."""
    options = ConfigFile(str(path)).options({"output": ["stdout"], "max-record": 5000})
    assert (options.outputs, options.max_record_bytes, options.engine) == (("stdout",), 5000, "core")


def test_through_json(path: Path) -> None:
    """Options are equal after JSON, so a change can be detected."""
    options = ConfigFile(str(path)).options({})
    assert from_json(to_json(options)) == options
    assert from_json("{}") == Options()


def test_nothing_is_kept() -> None:
    """`keep = false` disables pins and state, and the backfill unless it is set."""
    for settings, backfill in (({"keep": False}, False), ({"keep": False, "backfill": True}, True)):
        options = make_options(settings)
        assert (options.pins, options.state, options.backfill) == (None, None, backfill)


def wrong(path: Path, old: str, new: str) -> str:
    """The error for the file with a mistake."""
    assert old in FILE
    path.write_text(FILE.replace(old, new))
    with pytest.raises(TracerError) as caught:
        ConfigFile(str(path)).options({})
    assert caught.value.exit_code == EXIT_USAGE
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('engine = "core"', 'engin = "core"', ", line 2: unknown setting 'engin': did you mean engine?"),
        ('engine = "core"', "zzzzzz = 1", ", line 2: unknown setting 'zzzzzz': the settings are engine, output, "),
        ('engine = "core"', "engine = ", ", line 2: Invalid value: "),
        ('engine = "core"', 'engine = "fast"', ", line 2: invalid engine 'fast': use one of auto, core, bcc"),
        ("8000", '"8000"', ", line 3: max-record must be a number: "),
        ("8000", "true", ", line 3: max-record must be a number: "),
        ("8000", "80", ", line 3: max-record 80 is too small"),
        (r"['order-(\d+)']", "['(']", ", line 4: invalid regular expression '('"),
        (r"['order-(\d+)']", "[1]", ", line 4: redact must be an array of strings"),
        ("8000", "9" * 30, f", line 3: max-record {'9' * 30} is too large: "),
        ("8000", "9" * 5000, ": invalid number: "),
        ("8000", "[" * 100_000, ": values are nested too deeply: "),
        ('"eu-1"', r'"a\u0000b"', ", line 6: label is not text: "),
        ("/tmp/a b?name=x", "/tmp/a%00b?name=x", ", line 14: output file:/tmp/a%00b: not text: "),
        ("/tmp/a b?name=x", "/tmp/a%FFb?name=x", ", line 14: output file:/tmp/a%FFb: not text: "),
        ('"eu-1"', "1", ", line 7: label.cluster must be a string"),
        ("scope", "scop", ", line 10: invalid filter 'scop'"),
        ('["kube-*", "x"]', "[1]", ", line 11: except.namespace must be a string"),
        ('["kube-*", "x"]', "[]", ", line 11: except.namespace is empty"),
        ('"flat"', '"xml"', ", line 15: output file: invalid style=xml: use one of nested, flat, "),
        (
            "oom_exit",
            "oom_ext",
            ", line 16: output file:/tmp/a b: types=oom_kill,oom_ext: unknown record type 'oom_ext'",
        ),
        ('"1M"', "1.5", ", line 17: spool-bytes of output file:/tmp/a b must be a string or a number"),
        ('uri = "stdout"', "", ", line 19: an output has no uri: write uri = "),
        ('uri = "stdout"', 'uri = "file:/tmp/a b?name=x"', ", line 14: output file:/tmp/a b#x is configured twice"),
    ],
)
def test_mistakes(path: Path, old: str, new: str, said: str) -> None:
    """One line with file, line number, error and hint."""
    assert wrong(path, old, new).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nlabel = {a = 1}", ", line 2: label.a must be a string"),
        ("\nonly = {comm = []}", ", line 2: only.comm is empty"),
        ('\noutput = [{uri = "stdout", style = 1.5}]', ", line 2: style of output stdout must be a string"),
    ],
)
def test_mistakes_in_an_inline_table(tmp_path: Path, text: str, said: str) -> None:
    """The line number is that of the setting."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(TracerError) as caught:
        ConfigFile(str(path)).options({})
    assert caught.value.message.startswith(str(path) + said)


@pytest.mark.parametrize("empty", ["output = []", ""])
def test_no_output(tmp_path: Path, empty: str) -> None:
    """An empty list is an error; without a list the output is stdout."""
    (tmp_path / "config.toml").write_text(empty)
    if not empty:
        assert ConfigFile(str(tmp_path / "config.toml")).options({}).outputs == ("stdout",)
        return
    with pytest.raises(TracerError, match="line 1: no output is configured: name one") as caught:
        ConfigFile(str(tmp_path / "config.toml")).options({})
    assert caught.value.exit_code == EXIT_USAGE


def test_unreadable(tmp_path: Path) -> None:
    """The path is not a file, or not text."""
    (tmp_path / "latin1").write_bytes(b'engine = "\xe4"')
    for name, code in (("missing", EXIT_FAILED), ("", EXIT_FAILED), ("latin1", EXIT_USAGE)):
        with pytest.raises(TracerError) as caught:
            ConfigFile(str(tmp_path / name))
        assert caught.value.exit_code == code


def oomtrace(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tracer", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_check(path: Path) -> None:
    """`config check` reports a valid or an invalid file, and changes nothing."""
    finished = oomtrace("config", "check", str(path))
    assert finished.stdout == f"{path} is valid; outputs: file:/tmp/a b#x, stdout\n"
    path.write_text("[[output]]\n")
    finished = oomtrace("config", "check", str(path))
    assert (finished.returncode, finished.stdout) == (EXIT_USAGE, "")
    assert finished.stderr.startswith(f"oomtrace: {path}, line 1: an output has no uri: ")
    assert not (path.parent / "a b").exists()


def test_check_of_what_compresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`config check` refuses what `run` would refuse because a library is missing; it creates no file."""
    path = tmp_path / "config.toml"
    path.write_text(f'[[output]]\nuri = "file:{tmp_path}/x"\nrotate-bytes = "1M"\ncompress = "zstd"\n')
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(TracerError, match="pipx inject oomtrace zstandard"):
        check(str(path))
    monkeypatch.undo()
    check(str(path))
    assert not (tmp_path / "x").exists()


HOOK = "https://hooks.example.org/services/T0/geheim"


@pytest.mark.parametrize(
    ("uris", "told"),
    [
        (["htpps://bob:geheim@logs.example.org/"], "unknown output 'htpps://logs.example.org'"),
        (
            ["https://bob:geheim@logs.example.org/?batch"],
            "output https://logs.example.org: option 'batch' has no value",
        ),
        ([HOOK, HOOK], "output https://hooks.example.org is configured twice"),
        ([f"{HOOK}?query=k%3Dgeheim"], "is valid; outputs: https://hooks.example.org:443#"),
        (["http://logs.example.org "], "invalid host name"),
    ],
)
def test_check_tells_no_secret(path: Path, uris: list[str], told: str) -> None:
    """Messages contain neither user info nor paths of URIs, and there is never a traceback."""
    path.write_text("".join(f'[[output]]\nuri = "{uri}"\n' for uri in uris))
    finished = oomtrace("config", "check", str(path))
    said = finished.stdout + finished.stderr
    assert told in said
    assert said.count("\n") == 1
    assert "geheim" not in said
    assert "bob" not in said


def test_show(path: Path) -> None:
    """All settings by name, as JSON; as a file they give the same options."""
    shown = json.loads(oomtrace("config", "show", str(path)).stdout)
    config = ConfigFile(str(path))
    wanted = config.options({})
    assert list(shown) == list(SETTINGS)
    assert (shown["keep"], shown["label"], shown["max-record"]) == (True, {"cluster": "eu-1"}, 8000)
    config.settings = {name: config._parse_setting(name, value) for name, value in shown.items()}
    assert config.options({}) == wanted


def test_show_without_keep(path: Path) -> None:
    """Neither pins nor state are set."""
    path.write_text("keep = false")
    shown = json.loads(oomtrace("config", "show", str(path)).stdout)
    assert [shown[name] for name in ("keep", "pins", "state", "backfill")] == [False, None, None, False]


def test_documented(tmp_path: Path) -> None:
    """The shipped file, with all commented settings, and the example in the documentation are valid."""
    shipped = (ROOT / "deploy" / "config.toml").read_text()
    assert ConfigFile(str(ROOT / "deploy" / "config.toml")).options({}) == Options(config=f"{ROOT}/deploy/config.toml")
    examples = [re.sub(r"(?m)^# (?=\[|[a-z-]+ = )", "", shipped)]
    examples += re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "config.md").read_text(), re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        (tmp_path / "config.toml").write_text(example)
        options = ConfigFile(str(tmp_path / "config.toml")).options({})
        assert (options.labels, len(options.outputs), len(options.include)) == (
            (("cluster", "eu-1"),),
            len(options.outputs),
            2,
        )
        assert len(options.outputs) > 1


def test_run_has_every_setting() -> None:
    """Settings are the options of `oomtrace run`, with the same names."""
    found = set(oomtrace("run", "--help").stdout.replace("-o, ", "").replace("\n", " ").split())
    assert {f"--{name}" for name in SETTINGS} <= {word.partition("/")[0].rstrip(",") for word in found}
