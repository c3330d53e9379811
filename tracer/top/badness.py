# SPDX-License-Identifier: Apache-2.0
"""Whom the kernel would kill next: its own formula, over what /proc shows.

``oom_badness()`` and ``select_bad_process()`` in mm/oom_kill.c.  Not seen from here, and so left out: a process in the
middle of vfork(), one that is dying already, and swapoff(), which the kernel takes first.
"""

import mmap
from collections.abc import Iterable

from tracer.reading.processes import Process

OOM_SCORE_ADJ_MIN = -1000


def badness(process: Process, total_pages: int) -> int | None:
    """Points in pages, oom_badness(); None: never killed.

    ``total_pages`` is what oom_score_adj is measured by: RAM and swap, or the limit of a memory cgroup.
    """
    adj = process.oom_score_adj
    if not process.killable or adj is None or adj == OOM_SCORE_ADJ_MIN:
        return None
    resident = process.rss_bytes // mmap.PAGESIZE + process.swap_bytes // mmap.PAGESIZE
    return resident + process.page_tables_bytes // mmap.PAGESIZE + adj * (total_pages // 1000)


def next_choice(processes: Iterable[Process], total_pages: int) -> Process | None:
    """The one with the highest points, of equal ones the last, as oom_evaluate_task() takes it; None: nobody."""
    chosen, most = None, None
    for each in processes:
        points = badness(each, total_pages)
        if points is not None and (most is None or points >= most):
            chosen, most = each, points
    return chosen
