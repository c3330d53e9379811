# SPDX-License-Identifier: Apache-2.0
"""The Debian package file: lintian, its content, and the oldest supported Debian."""

import gzip
import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests import manpages
from tests.harness.environment import IN_VM, ROOT, not_applicable, require
from tests.unit.commands.test_cli import COMMANDS
from tracer import __version__
from tracer.commands.manual import plain

from .debian import SUITES, bootstrap

KILLED = (
    "Memory cgroup out of memory: Killed process 7 (dead) total-vm:8kB, anon-rss:4kB, file-rss:4kB, shmem-rss:0kB, "
    "UID:0 pgtables:4kB oom_score_adj:0"
)

BUILDERS = ("bogus-mail-host", "bogus-mail-host-in-debian-changelog", "root-in-contact")
"""lintian's tags for a local user's address, the maintainer's if the source has no git history."""


@pytest.fixture(scope="module")
def deb() -> Path:
    if IN_VM:
        not_applicable("a guest has neither a mirror nor the tools")
    path = ROOT / f"dist/oomtrace_{__version__}_all.deb"
    require(path.exists(), f"{path}: make deb")
    return path


def test_lintian(deb: Path) -> None:
    """lintian finds no violation of Debian policy."""
    ours = ["lintian", "--allow-root", "--fail-on=error", "--suppress-tags", ",".join(BUILDERS)]
    done = subprocess.run([*ours, deb], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "manual-page" not in done.stdout


def test_manual_and_completion(deb: Path) -> None:
    """Manual pages and completions are where man and the shells look for them."""
    listed = subprocess.run(["dpkg-deb", "--contents", deb], capture_output=True, text=True, check=True).stdout
    paths = {line.split()[5].removeprefix("./usr/share/") for line in listed.splitlines()}
    assert {f"man/{page.parent.name}/{page.name}.gz" for page in manpages.PAGES} <= paths
    assert {
        "bash-completion/completions/oomtrace",
        "zsh/vendor-completions/_oomtrace",
        "fish/vendor_completions.d/oomtrace.fish",
    } <= paths
    assert not [path for path in paths if path.startswith("doc/oomtrace/docs/man")]


def test_maintainer(deb: Path) -> None:
    """The maintainer is who built it, in all three places; no placeholder is left."""
    maintainer = subprocess.run(["dpkg-deb", "--field", deb, "Maintainer"], capture_output=True, text=True).stdout
    assert re.fullmatch(r"[^<>@]+ <[^<>@ ]+@[^<>@ ]+>\n", maintainer)
    archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        packed = files.extractfile("./usr/share/doc/oomtrace/changelog.gz")
        assert packed is not None
        changelog = gzip.decompress(packed.read()).decode()
    head, *_, trailer = changelog.strip().splitlines()
    assert head == f"oomtrace ({__version__}) unstable; urgency=medium"
    assert trailer.startswith(f" -- {maintainer.strip()}  ")


def test_debian_12(deb: Path, tmp_path: Path) -> None:
    """Every command works with the libraries of Debian 12, in particular typer 0.7."""
    helps = "\n".join(f"oomtrace {command} --help >/help-{command}.txt" for command in COMMANDS)
    command = f"""
        apt-get install --simulate /dist/{deb.name} >/simulated.txt
        apt-get install --yes --no-install-recommends /dist/{deb.name}
        cd /
        {helps}
        test "$(_OOMTRACE_COMPLETE=complete_bash COMP_WORDS='oomtrace wh' COMP_CWORD=1 oomtrace)" = why
        test "$(oomtrace --version)" = "oomtrace {__version__}"
        oomtrace schema >/schema.json
        oomtrace resolve /system.slice/ssh.service | grep -q ssh.service
        echo '[ 9.000000] {KILLED}' | oomtrace report - -o /report.html
        grep -q 'The kernel killed dead (pid 7)' /report.html
        code=0; oomtrace watch /dev/null 2>/watch.txt || code=$?
        test $code = 3
        grep -q python3-urwid /watch.txt
        oomtrace doctor >/doctor.txt || test $? = 3
        code=0; oomtrace run --engine bcc 2>/bcc.txt || code=$?
        test $code = 3
        code=0; oomtrace run --engine ebpf 2>/error.txt || code=$?
        test $code = 2
        apt-get purge --yes oomtrace
        ! find / -xdev -ipath '*oomtrace*' ! -path '/dist*' ! -path '/var/lib/apt/*' ! -path '/var/lib/dpkg/*' | grep .
    """
    root = bootstrap(SUITES["12"], tmp_path / "root", deb, command)
    for name in COMMANDS:
        assert plain(manpages.MANUALS[f"oomtrace-{name}"], 78) == (root / f"help-{name}.txt").read_text()
    assert "libbpf.so.1 can be loaded" in (root / "doctor.txt").read_text()
    brought = re.findall(r"^Inst (\S+)", (root / "simulated.txt").read_text(), re.MULTILINE)
    assert "oomtrace" in brought
    assert not [name for name in brought if re.search("bpfcc|llvm|clang", name)], "160 MB that are not needed"
    for file in ("doctor.txt", "bcc.txt"):
        assert "apt install python3-bpfcc" in (root / file).read_text()
    assert (root / "error.txt").read_text().startswith("oomtrace: ")
