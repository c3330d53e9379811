# SPDX-License-Identifier: Apache-2.0
"""Which host this is."""

import os

from tracer.event import Host


def read_host() -> Host:
    uname = os.uname()
    return {"name": uname.nodename, "boot_id": read_boot_id(), "kernel": uname.release}


def read_boot_id() -> str | None:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None
