# SPDX-License-Identifier: Apache-2.0
"""Builds the root file systems of guests, build/vm/NAME.ext4, from the descriptions below.

python3 -m tests.vm.root [NAME]...          build these, or all, unless they are up to date

SMALL is a Debian 12 without an init system; vm's own init.sh is its PID 1.  SMALL_ARM64 is the same for arm64, without
what engine bcc needs.  SYSTEMD is a Debian 13 with systemd and container runtimes, which runs only services that
the guest's command starts.
Python packages that are missing or too old in these Debians are in /opt/site.
Needs root, because mmdebstrap unpacks files of many owners.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from .debian import BUILD, LabError, mmdebstrap, output, sources
from .disks import write_ext4
from .machine import MACHINES


@dataclass(frozen=True)
class Root:
    """A Debian for guests; a change of any field changes the stamp, which rebuilds the image."""

    name: str
    suites: tuple[str, ...]
    packages: tuple[str, ...]
    python: str = ""  # the version for which wheels of site_packages are fetched
    site_packages: tuple[str, ...] = ()
    systemd: bool = False  # whether it is PID 1
    setup: str = ""  # shell commands, run in the new root when all is installed
    size: str = "2G"
    arch: str = "amd64"

    @property
    def image(self) -> Path:
        return BUILD / f"{self.name}.ext4"

    @property
    def foreign(self) -> bool:
        """Whether its programs cannot run here: then packages are only unpacked, without their scripts."""
        return self.arch != output("dpkg", "--print-architecture").strip()

    def build(self) -> None:
        """Make the image, unless one exists for this description.

        Raises LabError if a tool or a mirror fails.
        """
        stamp = self.image.with_suffix(".stamp")
        digest = hashlib.sha256(json.dumps(dataclasses.astuple(self)).encode()).hexdigest()
        if self.image.exists() and stamp.exists() and stamp.read_text() == digest:
            return
        if os.geteuid() != 0:
            raise LabError("building the guests' Debian needs root")
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD, prefix=f".{self.name}-") as name:
            folder = Path(name) / "root"
            mmdebstrap(
                f"--architectures={self.arch}",
                f"--variant={'extract' if self.foreign else 'minbase'}",
                '--aptopt=APT::Install-Recommends "false"',
                *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")),
                f"--include={','.join(self.packages)}",
                *self._hooks(Path(name)),
                self.suites[0],
                folder,
                "-",  # reads the apt sources from stdin
                stdin=sources(self.suites, self.arch),
            )
            write_ext4(folder, self.image, self.size)
        stamp.write_text(digest)

    def _hooks(self, work: Path) -> list[str]:
        hooks = []
        if self.site_packages:
            self._install_site(work / "site")
            hooks += [f'mkdir -p "$1/opt" && cp -r "{work}/site" "$1/opt"', self._compile()]
        if self.setup:
            (work / "setup").write_text(self.setup)
            hooks.append(f"chroot \"$1\" sh -eu <'{work}/setup'")
        if self.foreign:
            return [f"--setup-hook={_MERGE_USR}", *(f"--extract-hook={hook}" for hook in hooks)]
        return [f"--customize-hook={hook}" for hook in hooks]

    def _compile(self) -> str:
        """The hook that compiles byte code once; guests lose what they compile."""
        if not self.foreign:
            return 'chroot "$1" python3 -m compileall -q -j0 /opt/site'
        # Byte code is the same on all architectures.  Without such a Python here programs of the guest start slowly.
        python, library = f"python{self.python}", f"usr/lib/python{self.python}"
        folders = f'"$1/{library}" "$1/usr/lib/python3" "$1/opt/site"'
        return f'! command -v {python} >/dev/null || {python} -m compileall -q -j0 -s "$1" -p / {folders}'

    def _install_site(self, folder: Path) -> None:
        """Unpack wheels for the guest's version of Python."""
        tags = ["--python-version", self.python, "--implementation", "cp", "--only-binary=:all:"]
        for glibc in ("manylinux2014", "manylinux_2_28"):
            tags += ["--platform", f"{glibc}_{MACHINES[self.arch].wheels}"]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
        output(*pip, "--target", folder, *tags, *self.site_packages)


SMALL = Root(
    "root",
    ("bookworm", "bookworm-updates", "bookworm-security"),
    (
        "python3",
        "python3-bpfcc",
        "bpfcc-tools",
        "libbpf-tools",
        "bpftrace",
        "bpftool",
        "libbpf1",
        "procps",
        "kmod",
        "util-linux",
        "iproute2",
        "busybox-static",
    ),
    python="3.11",
    # typing_extensions: pip judges dependencies by the Python that runs it, and a newer one does not need it.
    site_packages=("typing_extensions", "orjson", "typer", "pyroute2", "pytest", "jsonschema", "hypothesis"),
)

# Essential packages must be listed, too: see Root.foreign.
SMALL_ARM64 = replace(
    SMALL,
    name="root-arm64",
    arch="arm64",
    packages=(
        "base-files",
        "dash",
        "coreutils",
        "python3",
        "libbpf1",
        "procps",
        "kmod",
        "util-linux",
        "mount",
        "iproute2",
        "busybox-static",
    ),
    size="1G",
)

# Done by a package's script otherwise.
_MERGE_USR = 'for name in bin sbin lib; do mkdir -p "$1/usr/$name" && ln -s "usr/$name" "$1/$name"; done'

# Guests lose their writes, so systemd would repeat the work of a first boot or an upgrade at each boot.
_SYSTEMD_SETUP = """
systemd-sysusers
/usr/lib/systemd/systemd-update-done
echo vm >/etc/hostname
printf '127.0.0.1 localhost vm\\n' >/etc/hosts
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\\nStorage=volatile\\nRateLimitIntervalSec=0\\nReadKMsg=no\\n' >/etc/systemd/journald.conf.d/vm.conf
systemctl mask tmp.mount dev-hugepages.mount dev-mqueue.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \\
    systemd-random-seed.service systemd-pcrphase-sysinit.service systemd-firstboot.service ldconfig.service
"""

SYSTEMD = Root(
    "systemd",
    ("trixie", "trixie-updates", "trixie-security"),
    (
        "systemd-sysv",
        "systemd-container",
        "libpam-systemd",
        "dbus",
        "kmod",
        "procps",
        "iproute2",
        "busybox-static",
        "docker.io",
        "docker-cli",
        "containerd",
        "containernetworking-plugins",
        "runc",
        "podman",
        "crun",
        "conmon",
        "netavark",
        "lxc",
        "python3",
        "python3-bpfcc",
        "libbpf1",
        "python3-orjson",
        "python3-typer",
        "python3-pyroute2",
        "python3-pytest",
        "python3-jsonschema",
        "python3-yaml",
        "apparmor",
        "systemd-oomd",
    ),
    python="3.13",
    site_packages=("grpcio", "protobuf"),
    systemd=True,
    setup=_SYSTEMD_SETUP,
    size="4G",
)

SMALLS = {root.arch: root for root in (SMALL, SMALL_ARM64)}
ALL = {root.name: root for root in (*SMALLS.values(), SYSTEMD)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.vm.root", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; default: all")
    names = parser.parse_args().names or list(ALL)
    if unknown := [name for name in names if name not in ALL]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(ALL)}")
    try:
        for name in names:
            ALL[name].build()
            print(ALL[name].image)
    except LabError as error:
        print(f"root: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
