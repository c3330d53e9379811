# SPDX-License-Identifier: Apache-2.0
"""Architectures: how QEMU emulates them, and where programs for them come from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A processor architecture, its board, and its names."""

    arch: str  # Debian's name
    wheels: str  # that in the platform tags of Python wheels
    cc: str  # the compiler whose programs run there
    qemu: str
    package: str  # Debian's, which has it
    board: str
    cpu: str
    # serial ports for the kernel's console, the command's output and its status, and how the latter two are plugged in
    ports: tuple[str, str, str]
    plug: tuple[str, str]
    parameters: str  # kernel parameters


MACHINES = {
    machine.arch: machine
    for machine in (
        Machine(
            arch="amd64",
            wheels="x86_64",
            cc="x86_64-linux-gnu-gcc",
            qemu="qemu-system-x86_64",
            package="qemu-system-x86",
            board="q35",
            cpu="max,la57=off",
            ports=("ttyS0", "ttyS1", "ttyS2"),
            plug=("-serial", "chardev:"),
            # The kernel calibrates the TSC while it boots, wrongly when QEMU is not scheduled for
            # a moment: the guest's time then ran up to six times too fast.  That of the HPET is known.
            parameters="tsc=unstable clocksource=hpet no_timer_check mitigations=off",
        ),
        Machine(
            arch="arm64",
            wheels="aarch64",
            cc="aarch64-linux-gnu-gcc",
            qemu="qemu-system-aarch64",
            package="qemu-system-arm",
            board="virt",
            # "max" boots in 11 s instead of 2, unless pauth-impdef=on spares it the architected pointer signatures.
            cpu="neoverse-n1",
            # The board has one serial port.
            ports=("ttyAMA0", "ttyS0", "ttyS1"),
            plug=("-device", "pci-serial,chardev="),
            parameters="mitigations=off",
        ),
    )
}
