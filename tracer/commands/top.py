# SPDX-License-Identifier: Apache-2.0
"""``oomtrace top``: processes by memory, with their limits and the next OOM victims."""

import sys
import time
from typing import get_args

import typer

from tracer.base.errors import EXIT_FAILED, TracerError
from tracer.base.printable import printable
from tracer.commands.common import (
    CGROUP,
    CONTAINER,
    JSON,
    POD,
    RUNTIME_ROOTS,
    UNIT,
    open_reading,
    print_json,
    warn_unread,
)
from tracer.commands.manual import choices, codes, documented
from tracer.identity.resolve import normalize_cgroup_path
from tracer.records.matching import OwnerFilter

INTERVAL_S = 2.0
SORT_KEYS = ("rss", "mem", "vsz", "cpu", "oom")
DISPLAY = "Display"


@documented(
    {
        "oomtrace top --container web": "Processes of one container, largest first, refreshed every 2 s.",
        "oomtrace top -n 1 --sort oom --lines 10": "Print the ten processes with the highest oom_score once.",
    },
    {**codes(EXIT_FAILED), EXIT_FAILED: "No process matches the selection.", 130: "Interrupted by SIGINT."},
)
def top(
    sort: str = typer.Option(
        "rss",
        metavar="|".join(SORT_KEYS),
        help="Sort key, highest first; mem is rss.",
        autocompletion=choices(SORT_KEYS),
        rich_help_panel=DISPLAY,
    ),
    lines: int = typer.Option(
        None,
        metavar="N",
        min=1,
        help="At most N processes.",
        show_default="all; on a terminal, as many as fit",
        rich_help_panel=DISPLAY,
    ),
    times: int = typer.Option(
        None,
        "-n",
        "--iterations",
        metavar="N",
        min=1,
        help="Exit after N refreshes, 2 s apart; 1 prints once, as a pipe gets it.",
        show_default="no limit; into a pipe, 1",
        rich_help_panel=DISPLAY,
    ),
    container: str = CONTAINER,
    pod: str = POD,
    unit: str = UNIT,
    cgroup: str = CGROUP,
    as_json: bool = JSON,
    runtime_root: list[str] = RUNTIME_ROOTS,
) -> None:
    """Show processes by memory, with limits and the next OOM victims.

    The columns of `ps aux`, and for each process the closest memory limit, what is left of it, the container, pod and
    unit, and whether the OOM killer would choose it next. Sizes are in KiB. Needs neither BPF nor the daemon.
    """
    from tracer.reading import processes  # imported here: they would slow down the start of `run`
    from tracer.reading.process_list import ProcessList
    from tracer.top import screen, snapshot
    from tracer.top.table import render_table

    owner = OwnerFilter(container, pod, unit, None if cgroup is None else normalize_cgroup_path(cgroup))
    for key in get_args(snapshot.Sort):
        if key == sort:
            break
    else:
        raise typer.BadParameter(f"{sort!r} is not one of {', '.join(get_args(snapshot.Sort))}.", param_hint="--sort")
    warned: set[str] = set()

    def take() -> tuple[snapshot.HostMemory, list[snapshot.ProcessEntry]]:
        host, entries = snapshots.take()
        return host, snapshot.select_entries(entries, key, owner)

    def fill(columns: int, rows: int) -> list[str]:
        host, entries = take()
        notes = [printable(each)[:columns] for each in snapshots.unread]
        shown = entries[: min(lines or rows, max(1, rows - 2 - len(notes)))]
        head = (
            f"{time.strftime('%H:%M:%S')}  {len(entries)} processes  "
            f"{host.available_bytes >> 20} of {host.total_bytes >> 20} MiB available  q ends"
        )
        return [head[:columns], *notes, *render_table(shown, columns)][:rows]

    def write() -> None:
        host, entries = take()
        warn_unread(set(snapshots.unread) - warned)
        warned.update(snapshots.unread)
        if not entries:
            raise TracerError(f"no process is in {owner}", "oomtrace top shows all processes with their owners")
        if as_json:
            print_json(snapshot.snapshot_json(host, entries[:lines], snapshots.unread))
        else:
            print(*render_table(entries[:lines]), sep="\n")

    with open_reading(runtime_root, processes.read_as_plain) as reading:
        snapshots = snapshot.Snapshots(reading.runtimes, ProcessList(reading.readers, reading.hung).read)
        if not as_json and times != 1 and screen.is_terminal():
            screen.refresh_screen(fill, INTERVAL_S, times)
            return
        try:
            write()
            for _ in range((times or 1) - 1):
                sys.stdout.flush()
                time.sleep(INTERVAL_S)
                write()
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
