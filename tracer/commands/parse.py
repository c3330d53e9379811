# SPDX-License-Identifier: Apache-2.0
"""``oomtrace parse``: past OOM kills, from kernel logs."""

import typer

from tracer.base.errors import EXIT_FAILED
from tracer.commands.common import ALWAYS_JSON, CGROUP, CONTAINER, POD, SELECTION, SINCE, UNIT, UNTIL
from tracer.commands.manual import codes, documented
from tracer.identity.resolve import normalize_cgroup_path

READING = "Reading"


@documented(
    {
        "journalctl -k -b -1 -o json | oomtrace parse": "Records of the previous boot, from the journal.",
        "oomtrace parse --sentence --since 2h --container web": "One sentence per kill of the last two hours in web.",
        "oomtrace parse -n 5 /var/log/kern.log.1 /var/log/kern.log": "The last five kills in rotated logs.",
    },
    {
        **codes(EXIT_FAILED),
        EXIT_FAILED: "A log could not be read, or not completely; standard error says which.",
        130: "Interrupted by SIGINT (without --follow).",
    },
)
def parse(
    files: list[str] = typer.Argument(
        None,
        metavar="FILE",
        help="Kernel log, plain or compressed (gzip, xz, bzip2, zstd); - is standard input.",
        show_default="standard input if it is a pipe or file, else /dev/kmsg (this boot)",
    ),
    since: str = SINCE,
    until: str = UNTIL,
    last: int = typer.Option(
        None, "-n", "--lines", "--last", metavar="N", min=1, help="The last N kills.", rich_help_panel=SELECTION
    ),
    container: str = CONTAINER,
    pod: str = POD,
    unit: str = UNIT,
    cgroup: str = CGROUP,
    grep: str = typer.Option(
        None,
        "-g",
        "--grep",
        metavar="REGEX",
        help="Kills whose JSON line matches this regular expression.",
        rich_help_panel=SELECTION,
    ),
    boot: str = typer.Option(
        None,
        "-b",
        "--boot",
        metavar="BOOT",
        help="Kills of one boot: 0 the last boot in the log, -1 the one before, 1 the first, or a boot ID.",
        rich_help_panel=SELECTION,
    ),
    pid: int = typer.Option(
        None, metavar="PID", min=1, help="Kills of this process or thread.", rich_help_panel=SELECTION
    ),
    comm: str = typer.Option(
        None,
        metavar="NAME",
        help="Kills of processes with this name; '*' and '?' are wildcards.",
        rich_help_panel=SELECTION,
    ),
    boot_time: str = typer.Option(
        None,
        metavar="TIME",
        help="Boot time of the host, for a log that has only seconds since boot.",
        rich_help_panel=READING,
    ),
    timezone: str = typer.Option(
        None,
        metavar="ZONE",
        help="Time zone of times without one, such as Europe/Berlin.",
        show_default="the local zone",
        rich_help_panel=READING,
    ),
    follow: bool = typer.Option(
        False, "-f", "--follow", help="Wait for new kills in the log, until SIGINT.", rich_help_panel=READING
    ),
    sentence: bool = typer.Option(False, "--sentence", help="Print one sentence per kill instead of JSON."),
    _as_json: bool = ALWAYS_JSON,
) -> None:
    """Read past OOM kills from kernel logs.

    Prints one JSON line per kill, the same records as the daemon writes; a field that the log does not have is null.
    Reads dmesg, syslog files, the journal (as text, or -o json) and /dev/kmsg, in any mixture. Needs no BPF, and
    root only for /dev/kmsg.
    """
    from tracer.logs import convert as parser
    from tracer.logs.kills import KillFilter, ReadOptions  # imported here: it would slow down the start of `run`

    path = None if cgroup is None else normalize_cgroup_path(cgroup)
    wanted = KillFilter(since, until, container, unit, grep, boot, pid, comm, last, pod, path)
    code = parser.parse(files or [], wanted, ReadOptions(boot_time, timezone, follow), sentence)
    if code:
        raise typer.Exit(code)
