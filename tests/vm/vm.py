# SPDX-License-Identifier: Apache-2.0
"""Runs a shell command as root in a throw-away VM with a kernel; the output and exit status are the command's.

python3 -m tests.vm.vm -k 6.1 -- 'uname -r; exit 7'
python3 -m tests.vm.vm -k 5.10 --cgroup 1 --put DIR --get DIR -- 'python3 /host/x.py >/out/x.txt'

QEMU emulates the processor (no KVM), so it runs wherever QEMU does, a few times slower.  What the guest writes to
its disks is lost, except /out.  There are two NUMA nodes, and /dev/vm-swap is a swap area that is off.
Everything in the small system starts with oom_score_adj -1000; in that with systemd the command is a service.

Status 124: timeout; 125: the guest died (its last console lines go to stderr); 2: usage error, or no lab.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from . import disks, kernels, qemu, root
from .debian import BUILD, LabError, output
from .machine import MACHINES
from .root import SMALL, SMALLS, Root

TIMEOUT, DIED = 124, 125
SWAP = BUILD / "swap.img"
SWAP_BYTES = 128 << 20
OUT_BYTES = 1 << 30


@dataclass(frozen=True)
class Guest:
    """A machine to boot, with the defaults of the command line."""

    kernel: str
    system: Root = SMALL
    # Each additional MiB makes a global OOM kill slower; bcc can compile in this.
    memory_mib: int = 512
    cgroup: int = 2
    headers: bool = False
    btf: bool = True
    put: Sequence[tuple[Path, str]] = ()  # (file or folder, the name it gets below /host)
    get: Path | None = None
    timeout: float = 300
    cpus: int = 1

    def run(self, command: str, out: BinaryIO, errors: BinaryIO) -> int:
        """Boot and run a shell command; its status, TIMEOUT or DIED. Its output is written to ``out`` at once."""
        with tempfile.TemporaryDirectory(prefix="vm-") as name:
            work = Path(name)
            arguments = self._prepare(command, work)
            # QEMU writes the overlays of snapshot=on to TMPDIR.
            environment = {**os.environ, "TMPDIR": name}
            emulator = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env=environment)
            try:
                emulator.wait(self.timeout)
            except subprocess.TimeoutExpired:
                return self._explain(f"no end after {self.timeout:g} s", work, errors, TIMEOUT)
            finally:
                emulator.kill()
                emulator.wait()
            status = dict(line.split() for line in (work / "status").read_text().splitlines() if " " in line)
            if "exit" not in status:
                return self._explain("the guest died", work, errors, DIED)
            if self.get:
                self.get.mkdir(parents=True, exist_ok=True)
                output("tar", "-x", "--no-same-owner", "-f", work / "out", "-C", self.get)
            return int(status["exit"])

    def _prepare(self, command: str, work: Path) -> list[str]:
        kernel = kernels.ALL[self.kernel]
        machine = MACHINES[kernel.arch]
        disks.write_initramfs(work / "initramfs", self._initramfs(command))
        images = {"root": (self.system.image, "snapshot=on"), "swap": (SWAP, "snapshot=on")}
        if self.headers:
            images["headers"] = (kernel.headers_image(), "readonly=on")
        if self.system.systemd:
            images["modules"] = (kernel.modules_image(), "readonly=on")
        if self.get:
            images["out"] = (work / "out", "cache=unsafe")
            with (work / "out").open("wb") as file:
                file.truncate(OUT_BYTES)
        console, out, status = machine.ports
        half = self.memory_mib // 2
        # tb-size: limit of QEMU's translated code, 1 GiB by default.  The runtimes are large programs.
        code = 512 if self.system.systemd else 256
        # One thread for all CPUs of a guest that has many: a guest's CPU that waits for another one leaves it the
        # processor, instead of spinning on it; 32 CPUs boot in a quarter of the time.
        threads = ",thread=single" if self.cpus > 1 else ""
        arguments = [*qemu.command(machine, self.cpus), "-accel", f"tcg,tb-size={code}{threads}"]
        arguments += ["-machine", machine.board, "-cpu", machine.cpu]
        arguments += ["-smp", str(self.cpus), "-m", f"{2 * half}M"]
        for node in "01":
            arguments += ["-object", f"memory-backend-ram,id=mem{node},size={half}M", "-numa", f"node,memdev=mem{node}"]
        arguments += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        arguments += ["-kernel", str(kernel.image()), "-initrd", f"{work}/initramfs"]
        # Words without a dot reach init as its environment.  loglevel=4 keeps OOM reports, which take long to print
        # on an emulated serial port, off the console.
        parameters = (
            f"console={console} loglevel=4 panic=-1 oops=panic nokaslr random.trust_cpu=on {machine.parameters} "
            f"VM_OUT={out} VM_STATUS={status} VM_CGROUP={self.cgroup} VM_BTF={'yes' if self.btf else 'no'}"
        )
        if self.system.systemd:
            parameters += " VM_INIT=systemd systemd.unit=vm.service systemd.show_status=no quiet"
        arguments += ["-append", parameters]
        arguments += ["-serial", f"file:{work}/console"]
        for chardev in ("stdio,id=out", f"file,id=status,path={work}/status"):
            arguments += ["-chardev", chardev]
        plug, prefix = machine.plug
        arguments += [plug, f"{prefix}out", plug, f"{prefix}status"]
        for serial, (image, option) in images.items():
            arguments += ["-drive", f"if=none,id={serial},format=raw,file={image},{option}"]
            arguments += ["-device", f"nvme,drive={serial},serial={serial}"]
        return arguments

    def _initramfs(self, command: str) -> list[disks.Entry]:
        here = Path(__file__).parent
        init = (here / "init.sh").read_bytes()
        entries: dict[str, disks.Entry] = {}

        def add(name: str, mode: int, data: bytes = b"") -> None:
            entries.setdefault(name, (name, mode, data))

        for name in (".vm", "host", "dev"):
            add(name, 0o40755)
        add("dev/console", 0o20600)
        add(".vm/busybox", 0o100755, disks.read(self.system.image, "/usr/bin/busybox"))
        add("init", 0o100755, init)  # busybox's switch_root requires this file in an initramfs
        add(".vm/init", 0o100755, init)
        add(".vm/vm.service", 0o100644, (here / "vm.service").read_bytes())
        add(".vm/command", 0o100644, command.encode() + b"\n")
        for source, where in self.put:
            path = Path("host", where)
            for parent in reversed(path.parents[:-2]):
                add(str(parent), 0o40755)
            for name, mode, data in disks.tree(source, str(path)):
                add(name, mode, data)
        return list(entries.values())

    def _explain(self, reason: str, work: Path, errors: BinaryIO, status: int) -> int:
        console = (work / "console").read_bytes() if (work / "console").exists() else b""
        errors.write(f"\nvm {self.kernel}: {reason}; its last console lines:\n".encode())
        errors.write(b"\n".join(console.splitlines()[-60:]) + b"\n")
        errors.flush()
        return status


def prepare(labels: Sequence[str], system: Root | None = None, cpus: int = 1) -> None:
    """Fetch and build what guests with these kernels and CPUs need; fast if it exists.

    The default system is the small one of the kernel's architecture.  Concurrent calls wait for each other.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for label in labels:
            kernel = kernels.ALL[label]
            kernels.fetch(kernel)
            qemu.fetch(MACHINES[kernel.arch], cpus)
            needed = system or SMALLS[kernel.arch]
            if needed.arch != kernel.arch:
                raise LabError(f"kernel {label} is for {kernel.arch}, but {needed.name} for {needed.arch}")
            if needed.systemd:
                kernels.write_modules(kernel)
            needed.build()
        if not SWAP.exists():
            disks.write_swap(SWAP, SWAP_BYTES)


def exit_on_signals() -> None:
    """Raise an exception on SIGTERM and SIGHUP, so that no QEMU is left behind."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)


def mebibytes(text: str) -> int:
    """640, 640M or 1G as a number of MiB."""
    return int(text[:-1]) << 10 if text[-1:] in "Gg" else int(text.rstrip("Mm"))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.vm.vm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-k", "--kernel", choices=kernels.ALL, required=True)
    parser.add_argument("-r", "--root", choices=root.ALL, help="systemd: Debian with runtimes; default: a small Debian")
    parser.add_argument("-m", "--memory", type=mebibytes, default=Guest.memory_mib, metavar="MIB", help="or 1G")
    parser.add_argument("-t", "--timeout", type=float, default=Guest.timeout, metavar="SECONDS")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--cgroup", type=int, choices=(1, 2), default=2)
    parser.add_argument("--headers", action="store_true", help="install linux-headers")
    parser.add_argument("--no-btf", action="store_true", help="hide /sys/kernel/btf")
    parser.add_argument("--put", action="append", type=Path, default=[], metavar="DIR", help="content goes to /host")
    parser.add_argument("--get", type=Path, metavar="DIR", help="receives the content of /out, and dmesg.txt")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if missing := [str(folder) for folder in options.put if not folder.is_dir()]:
        parser.error(f"no folder: {', '.join(missing)}")
    exit_on_signals()
    system = root.ALL[options.root] if options.root else SMALLS[kernels.ALL[options.kernel].arch]
    guest = Guest(
        kernel=options.kernel,
        system=system,
        memory_mib=options.memory,
        cgroup=options.cgroup,
        headers=options.headers,
        btf=not options.no_btf,
        put=[(folder, ".") for folder in options.put],
        get=options.get,
        timeout=options.timeout,
        cpus=options.cpus,
    )
    try:
        prepare([options.kernel], guest.system, guest.cpus)
        return guest.run(" ".join(options.command), sys.stdout.buffer, sys.stderr.buffer)
    except LabError as error:
        print(f"vm: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
