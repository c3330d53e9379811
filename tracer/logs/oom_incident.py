# SPDX-License-Identifier: Apache-2.0
"""One run of the OOM killer, as far as its lines were seen in the kernel log: its report, and the kills of it."""

from tracer.logs import oom_lines
from tracer.logs.oom_details import ReportLines
from tracer.logs.oom_kill_line import KillLine, has_plausible_page_tables
from tracer.logs.oom_tasks import TaskRow
from tracer.logs.victim_report import VictimReport
from tracer.records.matching import is_below


class LoggedIncident(ReportLines):
    """A report, and the kills that are of it."""

    is_torn = False
    """Whether lines are known to be missing: nobody knows then whose the next kills without a report are."""
    _is_certain = True
    """Whether the next kill of the group is certainly of it: its first victim was not killed for the second time."""

    def is_mixed(self, kill: KillLine) -> bool:
        """Whether the summary is of the kill, and the table in front of it is of another report.

        Before "mm: memcontrol: use CSS_TASK_ITER_PROCS at mem_cgroup_scan_tasks()" (5.3) a thread may be chosen, which
        the table does not show; the kill's lines tell of oom_score_adj since 5.4.
        """
        if self.summary is None or self.chosen_pid is None or self.kills or kill.oom_score_adj is None:
            return False
        return not self.tasks.may_have_process(self.chosen_pid)

    def can_take(self, kill: KillLine) -> bool:
        """Whether a "Killed process" line is of this report: it is the line's pid that tells."""
        if self.kills or self.lacks_first:
            first = self.kills[0].message if self.kills else kill.message
            return self.group is not None and first == kill.message and self._may_be_member(kill)
        if not self.may_say(kill.message):
            return False
        if self.chosen_pid is None:
            # 5.1 and later print the summary right before, and have the message in the line itself.
            return kill.message is None and self.tasks.has(kill.tid, kill.comm)
        if self.chosen is not None and self.tasks and not self.tasks.may_have_comm(kill.tid, kill.comm):
            return False
        if self.chosen_pid == kill.tid or self.tasks.are_same(self.chosen_pid, kill.tid):
            return True
        # A child of the chosen process (before 5.1).
        return self.chosen is not None and self.tasks.find(kill.tid) is not None

    def is_over(self, kill: KillLine, is_limited: bool) -> bool:
        """Whether nothing is missing here, though a kill follows that has no report and is not taken.

        ``is_limited``: whether the kernel may have printed none; it does not limit the line about a group.
        """
        if not self.kills:
            return not self.lacks_first
        if self.kills[0].message != kill.message or kill.message != oom_lines.MEMCG:
            return True
        return is_limited and (self.group is None or not self.tasks.may_have(kill.tid))

    def _may_be_member(self, kill: KillLine) -> bool:
        """Whether a kill without a report may be one of the group's, as far as the table tells; without one, whether it
        looks like those that are of it.

        The first victim is killed a second time among the others: all in front of that are of the group.
        """
        if self.tasks or self._is_certain:
            return self.tasks.may_have(kill.tid)
        return not self.is_limited and any(
            (kill.comm, kill.total_vm_bytes) == (other.comm, other.total_vm_bytes) for other in self.kills
        )

    def kill(self, kill: KillLine) -> None:
        """Take the kill of this report, or a further one of its group."""
        self.in_table = self.in_statistics = False
        self.pieces = b""
        if not self.kills:
            self.forget_others(kill.message or self.chosen)
            if self.first is None:
                self.first = kill.time_ns
            self.kills.append(kill)
        # A group kill's first victim is killed as one of the group, too.
        elif all(kill.tid != other.tid for other in self.kills):
            self.kills.append(kill)
        if self.group is not None and (self.lacks_first or kill.tid == self.kills[0].tid):
            self._is_certain = False

    def can_be_group(self, path: bytes) -> bool:
        """Whether a group kill in a cgroup can be of the report whose kill was the last."""
        if not self.kills or (self.cgroups.limit is not None and not is_below(path, self.cgroups.limit)):
            return False
        task = self._cgroups().task
        return task is None or is_below(task, path)

    def _cgroups(self) -> oom_lines.Cgroups:
        if self.summary is None or not self.kills:
            return self.cgroups
        return oom_lines.read_summary_cgroups(self.summary, self.kills[0].comm, self.cgroups.limit)

    def reports(self, complete: bool) -> list[VictimReport]:
        """What is known of each victim."""
        complete = complete and not self.is_torn
        self.cgroups = self._cgroups()
        largest = self.tasks.largest(self.kills[0].tid) if self.tasks and self.kills else None
        return [self._report(kill, largest, complete) for kill in self.kills]

    def _knows_constraint(self, kill: KillLine) -> bool:
        """Whether the summary's constraint says something: it was not set in 5.0-5.2, whose lines had no oom_score_adj.

        The root's cpuset, and no node mask, constrain nothing.
        """
        if kill.oom_score_adj is not None or self.constraint != b"NONE" or self.summary is None:
            return True
        return (
            self.summary.startswith(b"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=")
            and self.summary.find(b",oom_memcg=") < 0
        )

    def _is_chosen(self, kill: KillLine) -> bool:
        """Whether a kill is that of the process that was chosen, and not of a child of it."""
        pid = self.chosen_pid
        return pid is None or pid == kill.tid or self.tasks.are_same(pid, kill.tid)

    def _report(self, kill: KillLine, largest: list[TaskRow] | None, complete: bool) -> VictimReport:
        task = self.tasks.find(kill.tid)
        chosen = kill is self.kills[0] and self.chosen is None
        pid = task.pid if task is not None else None
        if pid is None and chosen and kill.oom_score_adj is not None and kill.message != oom_lines.ALLOCATING:
            # Such lines are of 5.4 and later, and since "mm: memcontrol: use CSS_TASK_ITER_PROCS at
            # mem_cgroup_scan_tasks()" (5.3) it is the first thread.
            pid = self.chosen_pid
        page_tables = kill.page_tables_bytes
        if page_tables is not None and not has_plausible_page_tables(kill):
            page_tables = task.page_tables_bytes if task is not None else None
        elif page_tables is None and task is not None:
            page_tables = task.page_tables_bytes
        adj = kill.oom_score_adj
        return VictimReport(
            kill.time_ns,
            self.first,
            self.clock,
            kill.tid,
            pid,
            kill.comm,
            kill.uid if kill.uid is not None else self.chosen_uid if chosen else None,
            kill.total_vm_bytes,
            kill.anon_rss_bytes,
            kill.file_rss_bytes,
            kill.shmem_rss_bytes,
            page_tables,
            adj if adj is not None or task is None else task.oom_score_adj,
            task,
            self.cgroups.task if kill is self.kills[0] and self._is_chosen(kill) else None,
            kill.message or self.chosen,
            self.constraint if self._knows_constraint(kill) else None,
            self.gfp_mask,
            self.gfp_flags,
            self.order,
            self.cgroups.limit,
            self.counters,
            self.statistics,
            self.trigger_comm,
            self.trigger_tid,
            self.trigger_tid if self.trigger_tid == pid else self.tasks.process_of(self.trigger_tid),
            largest,
            self.group is not None or (False if complete else None),
            len(self.kills) if complete and not self.lacks_first else None,
            kill.wall_ns,
            self.kills[0].tid,
            self.group,
            kill.rss_bytes,
            kill.swap_bytes,
            self.ram_pages,
            self.swap_bytes,
        )
