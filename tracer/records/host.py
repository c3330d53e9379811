# SPDX-License-Identifier: Apache-2.0
"""Which host this is."""

import os
from collections.abc import Iterable

from tracer.records.model import Host

NODE_NAME = "NODE_NAME"
"""The environment variable that tells a pod the name of its node; the kernel tells it the pod's."""


def read_host(labels: Iterable[tuple[str, str]] = ()) -> Host:
    uname = os.uname()
    return {
        "name": os.environ.get(NODE_NAME) or uname.nodename,
        "boot_id": read_boot_id(),
        "kernel": uname.release,
        "labels": dict(labels),
    }


def read_boot_id() -> str | None:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None
