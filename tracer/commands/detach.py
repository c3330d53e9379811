# SPDX-License-Identifier: Apache-2.0
"""``oomtrace detach``: ends a capture that stays in the kernel."""

import typer

from tracer.base.errors import EXIT_FAILED
from tracer.capture import pins
from tracer.commands.common import JSON, print_json
from tracer.commands.manual import codes, documented
from tracer.config.options import PINS_DIR


@documented(
    {
        "oomtrace detach": "End the capture of the service that was stopped.",
        "oomtrace detach --pins /sys/fs/bpf/test": "End the capture of `oomtrace run --pins /sys/fs/bpf/test`.",
    },
    codes(EXIT_FAILED),
)
def detach(
    folder: str = typer.Option(PINS_DIR, "--pins", metavar="DIR", help="bpffs directory of the capture."),
    as_json: bool = JSON,
) -> None:
    """End the capture that stays in the kernel after oomtrace exits.

    oomtrace pins its BPF programs in a bpffs, so that OOM kills are recorded while it restarts. This command removes
    the pins. Removing the Debian package does the same.
    """
    removed = pins.detach_captures(folder)
    if as_json:
        print_json({"pins": folder, "removed": removed})
        return
    for name in removed:
        print(f"removed {name}")
    if not removed:
        print(f"nothing is pinned in {folder}")
