# SPDX-License-Identifier: Apache-2.0
"""Downloads Debian's current kernel for labels such as 6.1, and unpacks it to build/vm/kernels/LABEL/{root,headers}.

python3 -m tests.vm.kernels [LABEL]...      fetch these, or all, unless they exist

The cloud flavour is used because NVMe, ext4 and the serial ports are built in: it boots without modules.
Remove build/vm/kernels to get newer versions.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .debian import BUILD, Apt, LabError, output
from .disks import write_ext4

KERNELS = BUILD / "kernels"
# Packages of a kernel.  Since 7.x linux-image-V only depends on linux-binary-V and linux-modules-V.
PARTS = {"root": "image|binary|modules", "headers": "headers|kbuild"}


@dataclass(frozen=True)
class Kernel:
    """A label, the Debian suites that may have it, and the prefix of its version."""

    label: str
    suites: tuple[str, ...]
    version: str
    headers: bool = False
    arch: str = "amd64"

    @property
    def folder(self) -> Path:
        return KERNELS / self.label

    def fetched(self) -> str:
        """The fetched package and version, or "not fetched"."""
        packages = self.folder / "packages"
        return packages.read_text().splitlines()[0] if packages.exists() else "not fetched"

    def image(self) -> Path:
        """Path of the bootable file.

        Raises LabError if it was not fetched.
        """
        found = [*self.folder.glob("root/boot/vmlinuz-*"), *self.folder.glob("root/usr/lib/modules/*/vmlinuz")]
        if len(found) != 1:
            raise LabError(f"no kernel {self.label} below {KERNELS}: run python3 -m tests.vm.kernels {self.label}")
        return found[0]

    def headers_image(self) -> Path:
        """A disk with linux-headers and their dependencies.

        Raises LabError if they were not fetched.
        """
        if not (self.folder / "headers.ext4").exists():
            raise LabError(f"kernel {self.label} was fetched without its headers")
        return self.folder / "headers.ext4"

    def modules_image(self) -> Path:
        """A disk with the content of /usr/lib/modules, see write_modules()."""
        return self.folder / "modules.ext4"


ALL = {
    kernel.label: kernel
    for kernel in (
        # Frozen when bullseye became an LTS release: here oom:mark_victim passes nothing but a pid.
        Kernel("5.10-old", ("bullseye",), "5.10."),
        Kernel("5.10", ("bullseye", "bullseye-security"), "5.10.", headers=True),
        Kernel("6.1", ("bookworm", "bookworm-security"), "6.1.", headers=True),
        Kernel("6.12", ("trixie", "trixie-security"), "6.12."),
        Kernel("7.x", ("sid", "trixie-backports", "trixie"), "7."),
        Kernel("6.1-arm64", ("bookworm", "bookworm-security"), "6.1.", arch="arm64"),
        Kernel("6.12-arm64", ("trixie", "trixie-security"), "6.12.", arch="arm64"),
    )
}


def fetch(kernel: Kernel) -> None:
    """Download and unpack one kernel, unless it exists.

    Raises LabError if the mirror does not have it.
    """
    if (kernel.folder / "packages").exists():
        return
    metas = {"root": f"linux-image-cloud-{kernel.arch}"}
    if kernel.headers:
        metas["headers"] = f"linux-headers-cloud-{kernel.arch}"
    # Only the meta packages need a pin, because backports are not candidates by default:
    # the packages they depend on carry the version in their names.
    pins = f"Package: {' '.join(metas.values())}\nPin: version {kernel.version}*\nPin-Priority: 990\n"
    KERNELS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KERNELS, prefix=".fetch-") as name:
        work = Path(name)
        apt = Apt(work / "apt", kernel.suites, pins, kernel.arch)
        listed: list[str] = []
        for part, meta in metas.items():
            packages = _dependencies(apt, meta, PARTS[part])
            (work / "new" / part).mkdir(parents=True)
            for deb in apt.download(packages, work / part):
                output("dpkg-deb", "-x", deb, work / "new" / part)
                listed.append(output("dpkg-deb", "-W", deb).replace("\t", " "))
        if not any(line.split()[1].startswith(kernel.version) for line in listed):
            raise LabError(f"no kernel {kernel.version}* in {', '.join(kernel.suites)}, but {''.join(listed)}")
        if kernel.headers:
            write_ext4(work / "new" / "headers", work / "new" / "headers.ext4")
        (work / "new" / "packages").write_text("".join(listed))
        shutil.rmtree(kernel.folder, ignore_errors=True)
        (work / "new").rename(kernel.folder)
    kernel.image()


def write_modules(kernel: Kernel) -> None:
    """Make the disk with a fetched kernel's modules, unless it exists."""
    if kernel.modules_image().exists():
        return
    # /lib/modules in older packages, /usr/lib/modules in newer ones
    (version,) = (path.parent for path in kernel.folder.glob("root/**/modules/*/kernel"))
    output("/sbin/depmod", "-b", version.parents[2], version.name)
    write_ext4(version.parent, kernel.modules_image(), "1G")


def _dependencies(apt: Apt, meta: str, kinds: str) -> list[str]:
    """Names of the packages of these kinds that a meta package depends on."""
    names = apt.cache("depends", "--recurse", "--important", meta).splitlines()
    found = sorted({name for name in names if re.fullmatch(rf"linux-({kinds})-\d\S*", name)})
    if not found:
        raise LabError(f"{meta} depends on no linux-({kinds})-VERSION: has Debian changed its kernel packages?")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.vm.kernels", description=__doc__.split("\n")[0])
    parser.add_argument("labels", nargs="*", metavar="LABEL", help=f"of {', '.join(ALL)}; default: all")
    labels = parser.parse_args().labels or list(ALL)
    if unknown := [label for label in labels if label not in ALL]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(ALL)}")
    try:
        for label in labels:
            fetch(ALL[label])
            print(f"{label}: {ALL[label].image().relative_to(BUILD)}")
    except LabError as error:
        print(f"kernels: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
