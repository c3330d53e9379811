# SPDX-License-Identifier: Apache-2.0
"""``oomtrace detach``: ends the capture that goes on in the kernel."""

import typer

from tracer import pins
from tracer.options import PINS_FOLDER


def detach(
    folder: str = typer.Option(PINS_FOLDER, "--pins", metavar="FOLDER", help="Where it is pinned."),
) -> None:
    """End the capture that goes on in the kernel while oomtrace does not run."""
    removed = pins.detach(folder)
    for name in removed:
        print(f"removed {name}")
    if not removed:
        print(f"nothing is pinned in {folder}")
