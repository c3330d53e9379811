# SPDX-License-Identifier: Apache-2.0
"""This host's identity."""

import os
from collections.abc import Iterable

from tracer.records.model import Host

NODE_NAME = "NODE_NAME"
"""Environment variable with the node's name, because uname(2) in a pod returns the pod's."""


def read_host(labels: Iterable[tuple[str, str]] = ()) -> Host:
    """The field ``host`` of this host's records; ``labels`` are operator-defined."""
    uname = os.uname()
    return {
        "name": os.environ.get(NODE_NAME) or uname.nodename,
        "boot_id": read_boot_id(),
        "kernel": uname.release,
        "labels": dict(labels),
    }


def read_boot_id() -> str | None:
    """The kernel's random id of this boot; None: it cannot be read."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None
