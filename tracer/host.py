# SPDX-License-Identifier: Apache-2.0
"""Which host this is."""

import os

from tracer.event import Host


def read_host() -> Host:
    uname = os.uname()
    return {"name": uname.nodename, "boot_id": read_boot_id(), "kernel": uname.release}


def network_namespace() -> int | None:
    """The inode number of the host's network namespace: of the first process's, which this one may not be in."""
    try:
        return os.stat("/proc/1/ns/net").st_ino
    except OSError:
        return None


def read_boot_id() -> str | None:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None
