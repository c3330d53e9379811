# SPDX-License-Identifier: Apache-2.0
"""What the kernel did not tell: whose cgroup it is, and what /proc still shows of the victim.

Never raises: a part that cannot be had stays null.
"""

from tracer import cgroup, process
from tracer.event import OomKill

_TICK_NS = 10_000_000


def enrich(record: OomKill, started_ns: int) -> None:
    """Fill in container, pod, unit and level; command line and executable where the kernel's side had none.

    ``started_ns`` is the victim's start in CLOCK_BOOTTIME: a process of the same number that started at another time
    is somebody else.
    """
    victim, limit = record["victim"], record["limit"]
    if victim["cgroup"] is not None:
        record["container"], record["kubernetes"], record["systemd"] = cgroup.identify(victim["cgroup"])
    if limit is not None:
        limit["level"] = cgroup.level(limit["cgroup"])
    pid = victim["pid"]
    if pid is None or (victim["cmdline"] is not None and victim["exe"] is not None):
        return
    # Reading of a process takes memory, and holds on to its own: on a host that has none left that kills the next one.
    if record["incident"]["scope"] != "memcg":
        return
    cmdline, exe = process.read_cmdline(pid), process.read_exe(pid)
    start_ns = process.read_start_ns(pid)
    if start_ns is None or abs(start_ns - started_ns) > _TICK_NS:
        return
    if victim["cmdline"] is None and cmdline:
        victim["cmdline"] = [
            argument.decode("utf-8", "backslashreplace")
            for argument in cmdline[: process.CMDLINE_LEN].removesuffix(b"\0").split(b"\0")
        ]
        if len(cmdline) > process.CMDLINE_LEN:
            record["truncated"].append("victim.cmdline")
    if victim["exe"] is None:
        victim["exe"] = exe
