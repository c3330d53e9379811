# SPDX-License-Identifier: Apache-2.0
"""One invocation of the OOM killer, as far as the kernel log shows it: its report and its kills."""

from tracer.logs import oom_lines
from tracer.logs.oom_details import ReportLines
from tracer.logs.oom_kill_line import KillLine, has_plausible_page_tables
from tracer.logs.oom_tasks import TaskRow
from tracer.logs.victim_report import VictimReport
from tracer.records.matching import is_below


class LoggedIncident(ReportLines):
    """A report and its kills."""

    has_lost_lines = False
    """Whether lines are missing: then it is unknown to which report the next kills belong."""
    _is_next_certain = True
    """Whether the next kill certainly belongs to the group: its first victim was not yet killed for the second time."""

    def has_table_of_other_report(self, kill: KillLine) -> bool:
        """Whether the summary belongs to the kill, but the table in front of it to another report.

        Before "mm: memcontrol: use CSS_TASK_ITER_PROCS at mem_cgroup_scan_tasks()" (5.3) a thread that is not in the
        table may be chosen; the line of the kill has had oom_score_adj since 5.4.
        """
        if self.summary is None or self.chosen_pid is None or self.kills or kill.oom_score_adj is None:
            return False
        return not self.tasks.may_have_process(self.chosen_pid)

    def accepts(self, kill: KillLine) -> bool:
        """Whether a "Killed process" line belongs to this report; its pid decides."""
        if self.kills or self.lacks_first_victim:
            first = self.kills[0].message if self.kills else kill.message
            return self.group is not None and first == kill.message and self._may_be_member(kill)
        if not self.may_have_message(kill.message):
            return False
        if self.chosen_pid is None:
            # 5.1 and later print the summary right before, and the message in the line itself.
            return kill.message is None and self.tasks.contains(kill.tid, kill.comm)
        if self.chosen_message is not None and self.tasks and not self.tasks.may_have_comm(kill.tid, kill.comm):
            return False
        if self.chosen_pid == kill.tid or self.tasks.are_same_process(self.chosen_pid, kill.tid):
            return True
        # The victim may be a child of the chosen process (before 5.1).
        return self.chosen_message is not None and self.tasks.find_row(kill.tid) is not None

    def is_complete_before(self, kill: KillLine, is_rate_limited: bool) -> bool:
        """Whether nothing is missing here, though the next kill has no report and is not accepted.

        ``is_rate_limited``: whether the kernel may have suppressed the report; it does not limit the line about a
        group.
        """
        if not self.kills:
            return not self.lacks_first_victim
        if self.kills[0].message != kill.message or kill.message != oom_lines.MEMCG:
            return True
        return is_rate_limited and (self.group is None or not self.tasks.may_contain(kill.tid))

    def _may_be_member(self, kill: KillLine) -> bool:
        """Whether a kill without a report may belong to the group, as far as the table shows; without a table, whether
        it resembles a kill of the group.

        The first victim is killed a second time among the others: all kills before that one belong to the group.
        """
        if self.tasks or self._is_next_certain:
            return self.tasks.may_contain(kill.tid)
        return not self.is_rate_limited and any(
            (kill.comm, kill.total_vm_bytes) == (other.comm, other.total_vm_bytes) for other in self.kills
        )

    def add_kill(self, kill: KillLine) -> None:
        """Add the kill of this report, or a further one of its group."""
        self.is_in_table = self.is_in_statistics = False
        self.partial_text = b""
        if not self.kills:
            self.drop_foreign_lines(kill.message or self.chosen_message)
            if self.first_ns is None:
                self.first_ns = kill.time_ns
            self.kills.append(kill)
        # The first victim of a group kill is killed again with the group.
        elif all(kill.tid != other.tid for other in self.kills):
            self.kills.append(kill)
        if self.group is not None and (self.lacks_first_victim or kill.tid == self.kills[0].tid):
            self._is_next_certain = False

    def can_be_group(self, path: bytes) -> bool:
        """Whether a group kill in a cgroup can belong to the report of the last kill."""
        if not self.kills or (self.cgroups.limit is not None and not is_below(path, self.cgroups.limit)):
            return False
        task = self._cgroups().task
        return task is None or is_below(task, path)

    def _cgroups(self) -> oom_lines.Cgroups:
        if self.summary is None or not self.kills:
            return self.cgroups
        return oom_lines.read_summary_cgroups(self.summary, self.kills[0].comm, self.cgroups.limit)

    def victim_reports(self, complete: bool) -> list[VictimReport]:
        """One report per victim."""
        complete = complete and not self.has_lost_lines
        self.cgroups = self._cgroups()
        largest = self.tasks.largest_rows(self.kills[0].tid) if self.tasks and self.kills else None
        return [self._victim_report(kill, largest, complete) for kill in self.kills]

    def _has_valid_constraint(self, kill: KillLine) -> bool:
        """Whether the summary's constraint is meaningful: 5.0 to 5.2 did not set it, and their lines have no
        oom_score_adj.

        The root's cpuset without a node mask constrains nothing.
        """
        if kill.oom_score_adj is not None or self.constraint != b"NONE" or self.summary is None:
            return True
        return (
            self.summary.startswith(b"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=")
            and self.summary.find(b",oom_memcg=") < 0
        )

    def _is_chosen(self, kill: KillLine) -> bool:
        """Whether the victim is the chosen process, and not a child of it."""
        pid = self.chosen_pid
        return pid is None or pid == kill.tid or self.tasks.are_same_process(pid, kill.tid)

    def _victim_report(self, kill: KillLine, largest: list[TaskRow] | None, complete: bool) -> VictimReport:
        row = self.tasks.find_row(kill.tid)
        pid = self._pid(kill, row)
        oom_score_adj = kill.oom_score_adj
        if oom_score_adj is None and row is not None:
            oom_score_adj = row.oom_score_adj
        # Positional, in the order of the fields: keywords take 5 us per kill, which a storm would show.
        return VictimReport(
            kill.time_ns,
            self.first_ns,  # incident_ns
            self.clock,
            kill.tid,
            pid,
            kill.comm,
            self.chosen_uid if kill.uid is None and self._is_first_chosen(kill) else kill.uid,  # uid
            kill.total_vm_bytes,
            kill.anon_rss_bytes,
            kill.file_rss_bytes,
            kill.shmem_rss_bytes,
            _page_tables_bytes(kill, row),
            oom_score_adj,
            row,  # task
            self.cgroups.task if kill is self.kills[0] and self._is_chosen(kill) else None,  # cgroup
            kill.message or self.chosen_message,  # message
            self.constraint if self._has_valid_constraint(kill) else None,  # constraint
            self.gfp_mask,
            self.gfp_flags,
            self.order,
            self.cgroups.limit,  # limit_cgroup
            self.counters,
            self.statistics,
            self.trigger_comm,
            self.trigger_tid,
            self.trigger_tid if self.trigger_tid == pid else self.tasks.pid_of(self.trigger_tid),  # trigger_pid
            largest,  # tasks
            self.group is not None or (False if complete else None),  # group_kill
            len(self.kills) if complete and not self.lacks_first_victim else None,  # victims
            kill.wall_ns,
            self.kills[0].tid,  # first_tid
            self.group,
            kill.rss_bytes,
            kill.swap_bytes,
            self.ram_pages,
            self.host_swap_bytes,
        )

    def _is_first_chosen(self, kill: KillLine) -> bool:
        """Whether the kill is the first one, and the summary names its process: no line named another one before."""
        return kill is self.kills[0] and self.chosen_message is None

    def _pid(self, kill: KillLine, row: TaskRow | None) -> int | None:
        """The victim's thread group; the kill's line names a thread."""
        if row is not None:
            return row.pid
        if self._is_first_chosen(kill) and kill.oom_score_adj is not None and kill.message != oom_lines.ALLOCATING:
            # Lines with oom_score_adj are of 5.4 and later, and since "mm: memcontrol: use CSS_TASK_ITER_PROCS at
            # mem_cgroup_scan_tasks()" (5.3) the summary names the first thread.
            return self.chosen_pid
        return None


def _page_tables_bytes(kill: KillLine, row: TaskRow | None) -> int | None:
    """The size of the page tables, from the table of tasks if the kill's line has none, or a wrong one."""
    if kill.page_tables_bytes is not None and has_plausible_page_tables(kill):
        return kill.page_tables_bytes
    return None if row is None else row.page_tables_bytes
