# SPDX-License-Identifier: Apache-2.0
"""The command as a user runs it: output, exit codes, and one line on stderr for every error."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.harness.environment import ROOT, not_applicable, require
from tests.harness.events import NOBODY
from tracer import __version__
from tracer.base.errors import EXIT_FAILED, EXIT_UNSUPPORTED, EXIT_USAGE
from tracer.encoding.encoder import MIN_MAX_BYTES
from tracer.identity.cgroup_path import parse_proc_cgroup
from tracer.records.json_schema import json_schema

ID = "5aaf9eb7648eeb1459d86eaa0ace8bcfa93089642e5c3113a14250dae3238aaf"
COMMANDS = ("run", "why", "top", "resolve", "parse", "report", "watch", "doctor", "schema", "detach")

Finished = subprocess.CompletedProcess[str]


def oomtrace(*arguments: str | bytes, wrapper: Sequence[str] = (), **options: Any) -> Finished:
    """The finished command."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [*wrapper, sys.executable, "-m", "tracer", *arguments]
    return subprocess.run(command, cwd=ROOT, encoding="utf-8", timeout=60, check=False, **options)


def check_refusal(finished: Finished, code: int) -> str:
    """The one line of an error."""
    assert (code, "") == (finished.returncode, finished.stdout or "")
    assert re.fullmatch(r"oomtrace: [^\n]+\n", finished.stderr), finished.stderr
    return finished.stderr


def test_version() -> None:
    """The version is that of the package."""
    finished = oomtrace("--version")
    assert (0, f"oomtrace {__version__}\n", "") == (finished.returncode, finished.stdout, finished.stderr)


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("command", [(), *((command,) for command in COMMANDS)])
def test_help(option: str, command: tuple[str, ...]) -> None:
    """Every command explains itself, in 80 columns of plain text."""
    finished = oomtrace(*command, option, env={**os.environ, "COLUMNS": "80"})
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "Usage:" in finished.stdout
    assert max(map(len, finished.stdout.splitlines())) <= 80
    if not command:
        assert all(name in finished.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-o", b"file:/tmp/\xff"),
        ("--label", b"a=\xff"),
        ("--state", b"/\xff"),
        ("--engine", b"\xff", "--engine", "core"),
        ("--only", b"comm=\xff"),
        ("--config", b"/\xff"),
    ],
)
def test_arguments_that_are_no_text(arguments: tuple[str | bytes, ...]) -> None:
    """The kernel takes any bytes; what is to stand in records is refused in one line."""
    finished = oomtrace("run", "--print-options", *arguments)
    check_refusal(finished, finished.returncode)
    assert finished.returncode in (EXIT_USAGE, EXIT_FAILED)


def test_no_arguments() -> None:
    """Without arguments the help is shown, and that was wrong usage."""
    finished = oomtrace()
    assert (finished.returncode, finished.stdout) == (EXIT_USAGE, "")
    assert finished.stderr.startswith("Usage:")


@pytest.mark.parametrize(
    "arguments",
    [
        ("bogus",),
        ("--bogus",),
        ("run", "--bogus"),
        ("run", "extra"),
        ("run", "--engine", "ebpf"),
        ("run", "--output"),
        ("run", "--output", ""),
        ("run", "--output", "stderr"),
        ("run", "--output", "stdout", "--output", "file:"),
        ("run", "--max-record", "many"),
        ("run", "--max-record", str(MIN_MAX_BYTES - 1)),
        ("resolve",),
        ("resolve", "nothing-is-called-so"),
        ("resolve", "unit:nothing-is-called-so"),
        ("why", "/"),
        ("top", "--cgroup", "docker"),
        ("report", "--since", "soon", "/dev/null"),
        ("resolve", ""),
        ("resolve", "0"),
        ("resolve", str(NOBODY)),
        ("resolve", "/a", "/b"),
        ("why",),
        ("why", ""),
        ("why", "a", "b"),
        ("why", "--exit-code", "many", "a"),
        ("top", "extra"),
        ("top", "--sort", "size"),
        ("top", "--lines", "0"),
        ("top", "-n", "0"),
        ("doctor", "extra"),
        ("schema", "--json"),
        ("parse", "--since", "soon", "/dev/null"),
        ("parse", "--until", "2026-13-01", "/dev/null"),
        ("parse", "--timezone", "Mars/Base", "/dev/null"),
        ("parse", "--boot-time", "then", "/dev/null"),
        ("parse", "--boot", "-1.5", "/dev/null"),
        ("parse", "--grep", "(", "/dev/null"),
        ("parse", "-n", "0", "/dev/null"),
        ("parse", "-f", "/dev/null", "/dev/null"),
        ("report",),
        ("report", "--format", "pdf", "/dev/null"),
        ("report", "-n", "0", "/dev/null"),
        ("watch", "/dev/null", "/dev/null"),
        ("watch", "/dev/null"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    """What is wrong with the arguments is said in one line."""
    check_refusal(oomtrace(*arguments), EXIT_USAGE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--bogus",), "No such option: --bogus. Try: oomtrace --help"),
        (("run", "--bogus"), "No such option: --bogus. Try: oomtrace run --help"),
        (("config", "check", "a", "b"), " Try: oomtrace config check --help"),
        (("run", "--label", "foo"), "'--label': 'foo' has no value; write NAME=VALUE. Try: oomtrace run --help"),
        (("run", "--except", "comm"), "'--except': 'comm' has no value; write FIELD=PATTERN. Try: "),
    ],
)
def test_hints(arguments: tuple[str, ...], said: str) -> None:
    """Which option is wrong, and whose help tells more."""
    assert said in oomtrace(*arguments).stderr


ANSWERS = (
    ("why", "sleep", "--records", "/dev/null"),
    ("top", "-n", "1"),
    ("resolve", "/system.slice/caf\u00e9\u2713.service"),
    ("parse", "--sentence", "tests/data/kernel_logs/7.2-oddname.txt"),
    ("doctor",),
    ("schema",),
)


@pytest.mark.parametrize("arguments", ANSWERS, ids=lambda arguments: arguments[0])
def test_without_stdout(arguments: tuple[str, ...]) -> None:
    """Where standard output is closed that is said, in one line."""
    command = 'exec "$@" >&-'
    finished = oomtrace(*arguments, wrapper=("sh", "-c", command, "sh"))
    assert "no standard output" in check_refusal(finished, EXIT_FAILED)


@pytest.mark.parametrize("arguments", ANSWERS, ids=lambda arguments: arguments[0])
def test_any_encoding(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """What the locale's encoding has not is spelled: a process, a cgroup and a container are called as they like."""
    odd = tmp_path / "\u2713\u00e9"
    odd.symlink_to(shutil.which("sleep") or "")
    with subprocess.Popen([str(odd), "60"]) as process:
        try:
            environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
            if arguments[0] == "why":
                arguments = ("why", str(process.pid), *arguments[2:])
            finished = oomtrace(*arguments, env=environment)
        finally:
            process.kill()
    assert "Traceback" not in finished.stderr
    assert finished.stdout.isascii()
    assert finished.stdout
    assert arguments[0] != "top" or "\\u2713\\xe9" in finished.stdout
    assert arguments[0] != "resolve" or "caf\\xe9\\u2713.service" in finished.stdout


def test_schema() -> None:
    """The schema is printed as JSON, and is a schema."""
    finished = oomtrace("schema")
    assert (finished.returncode, finished.stderr) == (0, "")
    schema = json.loads(finished.stdout)
    assert json_schema() == schema
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", [f"/docker/{ID}", f"/sys/fs/cgroup/docker/{ID}", f"/sys/fs/cgroup/memory/docker/{ID}"])
def test_resolve_path(path: str) -> None:
    """A path is told from wherever the user copied it."""
    finished = oomtrace("resolve", "--json", path)
    assert (finished.returncode, finished.stderr) == (0, "")
    resolved = json.loads(finished.stdout)
    assert (f"/docker/{ID}", "container") == (resolved["cgroup"], resolved["level"])
    assert (resolved["container"]["id"], resolved["container"]["runtime"]) == (ID, "docker")


def test_resolve_for_humans() -> None:
    """What is known stands in a line each; what is not says so."""
    finished = oomtrace("resolve", "/system.slice/ssh.service")
    lines = dict(line.split(None, 1) for line in finished.stdout.splitlines())
    assert (finished.returncode, finished.stderr) == (0, "")
    assert list(lines) == ["cgroup", "container", "kubernetes", "systemd"]
    assert lines["cgroup"] == "/system.slice/ssh.service (unit)"
    assert (lines["container"], lines["kubernetes"]) == ("none", "none")
    assert "ssh.service" in lines["systemd"]


def test_resolve_pid() -> None:
    """A process is told by its pid."""
    finished = oomtrace("resolve", "--json", str(os.getpid()))
    assert (finished.returncode, finished.stderr) == (0, "")
    path = parse_proc_cgroup(Path("/proc/self/cgroup").read_text())
    assert path == json.loads(finished.stdout)["cgroup"]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_resolve_hostile_path(options: tuple[str, ...]) -> None:
    """What a container calls its cgroups does not command the terminal."""
    finished = oomtrace("resolve", *options, b"/a\xff\x1b[31m\x7f\xc2\x9b")
    assert finished.returncode == 0
    assert re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f]*", finished.stdout), ascii(finished.stdout)


def test_doctor() -> None:
    """What this host can trace is told in JSON; the exit code says the same."""
    finished = oomtrace("doctor", "--json")
    assert finished.stderr == ""
    report = json.loads(finished.stdout)
    assert finished.returncode == (0 if report["can_trace"] else EXIT_UNSUPPORTED)
    assert report["can_trace"] == all(check["ok"] for check in report["checks"] if check["needed"])
    assert all(check["name"] and check["finding"] for check in report["checks"])
    assert all(check["remedy"] for check in report["checks"] if not check["ok"])


def test_doctor_for_humans() -> None:
    """Every check is a line, what is not there has a remedy, and the last line sums up."""
    names = [check["name"] for check in json.loads(oomtrace("doctor", "--json").stdout)["checks"]]
    finished = oomtrace("doctor")
    found = re.findall(r"^(?:ok     |MISSING|without)  ([^:]+): .", finished.stdout, re.MULTILINE)
    assert names == found
    assert finished.stdout.splitlines()[-1].startswith("This host can")


@pytest.fixture
def nobody() -> tuple[str, ...]:
    """Runs a command without root's rights; a user namespace leaves it able to read what root may read."""
    if os.geteuid() != 0:
        return ()
    wrapper = ("unshare", "--user")
    require(shutil.which("unshare"), "unshare")
    require(subprocess.run([*wrapper, "true"], check=False).returncode == 0, "user namespaces")
    return wrapper


def test_run_without_root(nobody: tuple[str, ...]) -> None:
    """Who may not trace is told to use sudo."""
    assert "sudo" in check_refusal(oomtrace("run", wrapper=nobody), EXIT_UNSUPPORTED)


def test_doctor_without_root(nobody: tuple[str, ...]) -> None:
    """The doctor needs no rights, and says that tracing does."""
    finished = oomtrace("doctor", "--json", wrapper=nobody)
    assert (finished.returncode, finished.stderr) == (EXIT_UNSUPPORTED, "")
    (privileges,) = (check for check in json.loads(finished.stdout)["checks"] if check["name"] == "privileges")
    assert (privileges["ok"], privileges["needed"]) == (False, True)


def test_run_without_capabilities() -> None:
    """Root in a container that may not trace is told which capabilities it lacks."""
    if os.geteuid() != 0:
        not_applicable("only root has capabilities to lose")
    wrapper = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    assert "CAP_BPF" in check_refusal(oomtrace("run", "--no-keep", wrapper=wrapper), EXIT_UNSUPPORTED)


def test_detach_nothing(tmp_path: Path) -> None:
    """Where nothing is pinned there is nothing to do."""
    finished = oomtrace("detach", "--pins", str(tmp_path / "none"))
    told = f"nothing is pinned in {tmp_path}/none\n"
    assert (0, told, "") == (finished.returncode, finished.stdout, finished.stderr)


def test_json(tmp_path: Path) -> None:
    """What commands print for a human, --json prints for a script; the exit code is the same."""
    detached = json.loads(oomtrace("detach", "--json", "--pins", str(tmp_path / "none")).stdout)
    assert detached == {"pins": str(tmp_path / "none"), "removed": []}
    config = tmp_path / "config.toml"
    config.write_text('output = ["file:/tmp/oom.json"]\nmetrics = ["file:/tmp/oom.prom"]\n')
    checked = oomtrace("config", "check", "--json", str(config))
    assert (checked.returncode, json.loads(checked.stdout)) == (
        0,
        {
            "file": str(config),
            "valid": True,
            "outputs": ["file:/tmp/oom.json"],
            "metrics": ["file:/tmp/oom.prom"],
            "error": None,
        },
    )
    assert json.loads(oomtrace("config", "show", "--json", str(config)).stdout)["metrics"] == ["file:/tmp/oom.prom"]
    config.write_text("engine = 'core'\nnonsense = 1\n")
    checked = oomtrace("config", "check", "--json", str(config))
    found = json.loads(checked.stdout)
    assert (checked.returncode, found["valid"], found["outputs"]) == (EXIT_USAGE, False, [])
    assert "line 2: unknown setting 'nonsense'" in found["error"]
    assert found["error"] in oomtrace("config", "check", str(config)).stderr


def test_report_format(tmp_path: Path) -> None:
    """A report is what its file's name says, unless --format says otherwise."""
    log = "tests/data/kernel_logs/7.2-group.txt"
    for name, options, is_page in (
        ("a.html", (), True),
        ("a.md", (), False),
        ("b.MD", (), False),
        ("c.md", ("--format", "html"), True),
        ("page", (), True),
        ("text", ("--format", "md"), False),
    ):
        assert oomtrace("report", log, "-o", str(tmp_path / name), *options).returncode == 0
        assert (tmp_path / name).read_text().startswith("<!") is is_page, name
    assert oomtrace("report", log).stdout.startswith("<!")


def test_detach_elsewhere(tmp_path: Path) -> None:
    """What is in no bpffs is left alone."""
    line = check_refusal(oomtrace("detach", "--pins", str(tmp_path)), EXIT_FAILED)
    assert f"{tmp_path} is not in a bpffs" in line
    assert tmp_path.exists()


def test_run_into_nowhere(nobody: tuple[str, ...], tmp_path: Path) -> None:
    """An output that cannot be opened is told before anything is traced."""
    refused = check_refusal(oomtrace("run", "-o", f"file:{tmp_path}/no/file", wrapper=nobody), EXIT_FAILED)
    assert f"{tmp_path}/no/file" in refused


@pytest.mark.parametrize("arguments", [("schema",), ("--version",), ("--help",), ("resolve", "/a"), ("doctor",)])
def test_reader_has_left(arguments: tuple[str, ...]) -> None:
    """Where nobody reads any more (`| head`) the command ends without a word."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    finished = oomtrace(*arguments, stdout=write_end)
    os.close(write_end)
    assert (finished.returncode, finished.stderr) == (EXIT_FAILED, "")


@pytest.mark.parametrize("arguments", [("schema",), ("--version",), ("resolve", "/a"), ("resolve", "--json", "/a")])
def test_full_disk(arguments: tuple[str, ...]) -> None:
    """Output that cannot be written is an error of one line."""
    with open("/dev/full", "wb") as full:
        finished = oomtrace(*arguments, stdout=full)
    check_refusal(finished, EXIT_FAILED)


def test_working_directory(tmp_path: Path) -> None:
    """Modules in the working directory, which may be anybody's, are not run."""
    script = Path(sys.executable).with_name("oomtrace")
    require(script.exists(), "oomtrace is installed beside this Python")
    (tmp_path / "tracer").mkdir()
    for name in ("__init__", "cli", "daemon"):
        (tmp_path / f"tracer/{name}.py").write_text('print("a stranger")\n')
    command = [str(script), "run", "-o", f"file:{tmp_path}/no/file"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert f"{tmp_path}/no" in check_refusal(finished, EXIT_FAILED)


def test_doctor_in_a_strange_directory(tmp_path: Path) -> None:
    """Root asks the doctor where somebody else has put a module called bcc: it is not run."""
    (tmp_path / "bcc.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\nBPF = None\n")
    script = Path(sys.executable).with_name("oomtrace")
    require(script.exists(), "oomtrace is installed beside this Python")
    subprocess.run([str(script), "doctor"], cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert not (tmp_path / "run").exists()


NO_OPENAT2 = """
import ctypes, os, struct, sys
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 437), (0x06, 0, 0, 0x50000 | 1), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
program = struct.pack("=H6xQ", len(rules), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""
"""A seccomp filter as systemd's RestrictSUIDSGID= makes one: EPERM for openat2()."""


@pytest.mark.parametrize("wrapper", [(), (sys.executable, "-c", NO_OPENAT2)])
def test_doctor_without_openat2(wrapper: tuple[str, ...]) -> None:
    """What reads the runtimes' files is tried, and where it is forbidden it is said what to do."""
    checks = json.loads(oomtrace("doctor", "--json", wrapper=wrapper).stdout)["checks"]
    (check,) = (check for check in checks if check["name"] == "files of runtimes")
    assert check["ok"] is not bool(wrapper)
    assert check["needed"] is False
    assert ("RestrictSUIDSGID" in check["remedy"]) is bool(wrapper)
