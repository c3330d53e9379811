# SPDX-License-Identifier: Apache-2.0
"""The process that the kernel would kill next, by the kernel's formula and data from /proc.

``oom_badness()`` and ``select_bad_process()`` in mm/oom_kill.c.  Not visible in /proc, and therefore ignored: processes
in vfork(), processes that are dying already, and swapoff(), which the kernel kills first.
"""

import mmap
from collections.abc import Iterable

from tracer.reading.processes import Process

OOM_SCORE_ADJ_MIN = -1000


def badness(process: Process, total_pages: int) -> int | None:
    """Points in pages, as of oom_badness(); None: exempt from the OOM killer.

    ``total_pages``: the total that oom_score_adj is relative to: RAM and swap, or the limit of a memory cgroup.
    """
    adj = process.oom_score_adj
    if not process.killable or adj is None or adj == OOM_SCORE_ADJ_MIN:
        return None
    resident = process.rss_bytes // mmap.PAGESIZE + process.swap_bytes // mmap.PAGESIZE
    return resident + process.page_tables_bytes // mmap.PAGESIZE + adj * (total_pages // 1000)


def next_choice(processes: Iterable[Process], total_pages: int) -> Process | None:
    """The process with the highest points, of equal ones the last, as in oom_evaluate_task(); None: no candidate."""
    chosen, most = None, None
    for each in processes:
        points = badness(each, total_pages)
        if points is not None and (most is None or points >= most):
            chosen, most = each, points
    return chosen
