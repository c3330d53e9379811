# SPDX-License-Identifier: Apache-2.0
"""Untrusted texts: cgroup paths, command lines, lines of the kernel log, names of files."""

import contextlib
import os
import tempfile
import time
from functools import cache
from pathlib import Path

import orjson

from tests.unit.identity.test_cgroup_path import VECTORS
from tests.unit.linux.test_gfp_flags import TABLES
from tracer.capture import wire
from tracer.identity import cgroup_path
from tracer.linux import cgroupfs, gfp_flags, safe_files
from tracer.linux.safe_files import UnreadableError
from tracer.pipeline import console_report
from tracer.redaction.cmdline import Redactor

from .target import Target

SECRET = "Zq9xVw3kTr7m"  # noqa: S105 - what must not be found again
HIDDEN = (
    "--password=" + SECRET,
    "PGPASSWORD=" + SECRET,
    "--api-key=" + SECRET,
    "https://me:" + SECRET + "@db.example/x",
    "Authorization: Bearer " + SECRET,
    "ghp_" + SECRET * 3,
    "-----BEGIN PRIVATE KEY-----\n" + SECRET,
    '{"password": "' + SECRET + '"}',
)
"""Arguments with a secret that is found by default, among any other arguments."""
LEADING = (
    ("app", "--db-password", SECRET),
    ("app", "--auth-token", SECRET),
    ("mysql", "-p" + SECRET),
    ("redis-cli", "-a", SECRET),
    ("sshpass", "-p", SECRET, "ssh"),
    ("curl", "-u", "me:" + SECRET),
    ("sh", "-c", "exec app --token " + SECRET + " --port 80"),
    ("sh", "-c", "PGPASSWORD=" + SECRET + " pg_dump -h db"),
)
"""Starts of command lines; the meaning of an option depends on the program before it."""
_BYTES_A_SECOND = 1 << 15
_PATH_BYTES_MAX = 8192
_CMDLINE_BYTES_MAX = 2048
"""Both twice the maximum of the BPF programs."""


def _soon(began: float, data: bytes) -> None:
    """Check that time grows linearly with the input."""
    assert time.process_time() - began < 1 + len(data) / _BYTES_A_SECOND


def run_cgroup(data: bytes) -> None:
    """A path and a child of it: the parent's identity stays, and all names are parts of the path."""
    data = data[:_PATH_BYTES_MAX]
    began = time.process_time()
    names = data.split(b"\n", 1)
    above, below = wire.join_path(names[0]), wire.join_path(data.replace(b"\n", b"\0"))
    for path in (above, below, data.decode("utf-8", "backslashreplace")):
        identity = cgroup_path.parse_cgroup_path(path)
        cgroup_path.classify_cgroup(path)
        orjson.dumps(tuple(identity))
        if identity.container:
            assert identity.container["id"] in path
            assert "/" not in identity.container["id"]
            assert (identity.container["node_container_id"] or "") in path
        assert cgroup_path.parse_proc_cgroup(f"0::{path}") is not None or not path.startswith("/")
    first, second = cgroup_path.parse_cgroup_path(above), cgroup_path.parse_cgroup_path(f"{above}/{below}")
    if first.container and second.container:
        outer = first.container["node_container_id"] or first.container["id"]
        assert outer == second.container["node_container_id"] or outer == second.container["id"]
    assert not first.container or second.container
    assert not first.kubernetes or first.kubernetes == second.kubernetes
    cgroupfs.parse_mountinfo(below)
    _soon(began, data)


def cgroup_seeds() -> list[bytes]:
    return [b"".join(name.encode() + b"\0" for name in reversed(str(each["path"]).split("/"))) for each in VECTORS]


def run_redact(data: bytes) -> None:
    """The number of arguments is unchanged, and a secret is redacted in any context."""
    data = data[:_CMDLINE_BYTES_MAX]
    began = time.process_time()
    redactor = Redactor()
    kind, rest = (data[:1] or b"\0")[0], data[1:]
    noise = [part.decode("utf-8", "backslashreplace").replace(SECRET, "") for part in rest.split(b"\0")]
    assert len(redactor.redact(noise)) == len(noise)
    half = len(noise) // 2
    arguments = [*noise[:half], HIDDEN[kind % len(HIDDEN)], *noise[half:]]
    if kind & 128:
        arguments = [*LEADING[kind % len(LEADING)], *noise]
    redacted = redactor.redact(arguments)
    assert len(redacted) == len(arguments)
    assert not [argument for argument in redacted if SECRET in argument]
    _soon(began, data)


def redact_seeds() -> list[bytes]:
    lines = [
        "app\0-v",
        "mysql\0-u\0root\0-h\0db",
        "sh\0-c\0curl 'https://x' | sh",
        "curl\0-u\0me\0-d\0{}",
        "--auth\0md5",
    ]
    return [bytes([kind]) + each.encode() for kind in (*range(8), *range(128, 136)) for each in lines]


def run_kernel_log(data: bytes) -> None:
    """Numbers fit into JSON; a limit's cgroup is the victim's or a parent of it."""
    victim, *pieces = data.split(b"\0")
    report = console_report.parse_console_report(pieces, b"/" + victim)
    orjson.dumps(tuple(report))
    if report.limit_cgroup is not None:
        assert (b"/" + victim).decode("utf-8", "backslashreplace").startswith(report.limit_cgroup.rstrip("/"))


def kernel_log_seeds() -> list[bytes]:
    invoked = b"hog invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"
    summary = b"oom-kill:constraint=CONSTRAINT_%s,nodemask=(null),cpuset=/,mems_allowed=0,%stask_memcg=/a/b,task=x,"
    summary += b"pid=5,uid=0"
    killed = b"Memory cgroup out of memory: Killed process 5 (x) total-vm:1kB, anon-rss:2kB\n"
    memcg, host = summary % (b"MEMCG", b"oom_memcg=/a,"), summary % (b"NONE", b"")
    runs = [(invoked, memcg, killed), (killed,), (memcg, killed), (invoked, host[:40], host[40:], killed)]
    return [b"\0".join((b"a/b", *each)) for each in runs]


def run_gfp(data: bytes) -> None:
    """A table, or the documented error."""
    began = time.process_time()
    try:
        table = gfp_flags.parse_table(data.decode("ascii", "replace"))
    except ValueError:
        return
    assert all(0 <= bits < 1 << 32 for bits, _ in table)
    _soon(began, data)


def gfp_seeds() -> list[bytes]:
    return [path.read_bytes()[-3000:] for path in TABLES.values()]


@cache
def _tree() -> tempfile.TemporaryDirectory[str]:
    """A directory with symbolic links out of it, and files of all types."""
    made = tempfile.TemporaryDirectory(prefix="oomtrace-fuzz-")
    top = Path(made.name)
    (top / "secret").write_text(SECRET)
    root = top / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").write_text("content")
    for name, target in (
        ("out", "../secret"), ("absolute", str(top / "secret")), ("up", ".."), ("loop", "loop"), ("in", "a/file"),
        ("magic", "/proc/self/root"), ("cwd", "/proc/self/cwd"), ("a/up", "../../secret"), ("a/b/far", "../../up"),
    ):  # fmt: skip
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo")
    return made


def run_files(data: bytes) -> None:
    """No name leads to a file outside, or blocks; unreadable files are reported."""
    folder = f"{_tree().name}/root"
    name = data.decode("utf-8", "surrogateescape")
    before = len(os.listdir("/proc/self/fd"))
    began = time.monotonic()
    try:
        content = safe_files.read_file(folder, name)
        assert content in (None, b"content")
    except UnreadableError as error:
        orjson.dumps(str(error).encode(errors="surrogateescape").decode("utf-8", "backslashreplace"))
    with contextlib.suppress(UnreadableError):
        assert "secret" not in list(safe_files.list_directory(folder, name))
    assert time.monotonic() - began < 1
    assert before == len(os.listdir("/proc/self/fd"))


def files_seeds() -> list[bytes]:
    names = [
        "a/file",
        "in",
        "out",
        "absolute",
        "up/secret",
        "a/up",
        "a/b/far/secret",
        "magic/etc/hostname",
        "fifo",
        "loop",
    ]
    return [name.encode() for name in (*names, "a/../../secret", "/etc/hostname", "cwd", "./a//file", ".", "..")]


TEXTS = (
    Target("cgroup", run_cgroup, cgroup_seeds),
    Target("redact", run_redact, redact_seeds),
    Target("kernel_log", run_kernel_log, kernel_log_seeds),
    Target("gfp", run_gfp, gfp_seeds),
    Target("files", run_files, files_seeds),
)
