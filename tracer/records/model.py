# SPDX-License-Identifier: Apache-2.0
"""The event model: every record that oomtrace writes, as it stands in the JSON.

Records are plain dictionaries, typed here and nowhere else; the JSON Schema and the record reference are
generated from these annotations.  TypedDict instead of dataclasses keeps 3 MB out of the daemon.

Conventions: integers in base units with the unit in the name, ``None`` for "unknown", RFC 3339 UTC time
with nanoseconds.  Bytes that a container chose (comm, cgroup, command line) are decoded as UTF-8 with
``backslashreplace``, so that they are valid JSON whatever they hold.
"""

from typing import Annotated, Literal, TypedDict

from tracer.records.owner import OWNER_DESCRIPTION, Container, Kubernetes, Network, Owner, Systemd

SCHEMA = 1
"""Value of `schema` in every record; it increases only when a field changes its meaning."""

Scope = Literal["memcg", "host", "cpuset", "mempolicy", "host_or_nodes", "sysrq"]
Level = Literal["root", "slice", "qos", "pod", "container", "unit", "other"]
Source = Literal["bpf", "bpf_tracepoints", "kernel_log"]

NO_LIMIT_BYTES = 0x7FFFFFFFFFFFF000
"""What the kernel shows for "no limit" (PAGE_COUNTER_MAX, 4 KiB pages)."""


class Host(TypedDict):
    """The host that the record comes from."""

    name: Annotated[str | None, "Host name (`uname -n`); in a pod the node's (`NODE_NAME`); of a log the log's."]
    boot_id: Annotated[str | None, "The kernel's random id of this boot (`/proc/sys/kernel/random/boot_id`)."]
    kernel: Annotated[str | None, "Kernel release (`uname -r`); null for a log."]
    labels: Annotated[dict[str, str] | None, "Operator-defined labels (`--label`); null for a log."]


HOST_PLACEHOLDER: Host = {"name": "", "boot_id": None, "kernel": "", "labels": None}
"""Of a record that is still to be written."""


class Incident(TypedDict):
    """One run of the OOM killer."""

    id: Annotated[str, "Identifies one run of the OOM killer: all victims of one group kill share it."]
    scope: Annotated[
        Scope | None,
        "What ran out: a memory cgroup's limit, the host, the nodes of a cpuset or of a memory policy; "
        "`host_or_nodes` is one of the latter three, if a log does not say which; "
        "`sysrq` is a kill that was requested with SysRq-f.",
    ]
    group_kill: Annotated[bool | None, "Whether `memory.oom.group` made the kernel kill a whole cgroup."]
    victims: Annotated[int | None, "Processes killed in this incident; each has its own record."]
    gfp_mask: Annotated[int | None, "Allocation flags of the failed request, as this kernel's number."]
    gfp_flags: Annotated[str | None, "The same flags by name, as in the kernel log (`GFP_KERNEL|__GFP_ZERO`)."]
    order: Annotated[int | None, "The request was for 2^order pages; -1 for SysRq-f."]
    total_pages: Annotated[
        int | None,
        "Pages against which the kernel weighed scores: the limit that was hit, or RAM plus swap. "
        "Never the victim's size.",
    ]
    message: Annotated[str | None, "The kernel's text for the incident (`Memory cgroup out of memory`)."]


class Breakdown(TypedDict):
    """The memory in a cgroup by kind."""

    anon_bytes: Annotated[int | None, "Anonymous memory: heaps and stacks."]
    file_bytes: Annotated[int | None, "Page cache, tmpfs and shared memory included."]
    shmem_bytes: Annotated[int | None, "tmpfs and shared memory: cannot be dropped like other page cache."]
    slab_bytes: Annotated[int | None, "Kernel objects (dentries, inodes, ...)."]
    kernel_bytes: Annotated[int | None, "All kernel memory, slab included; Linux 5.18 and later, or cgroup v1."]
    sock_bytes: Annotated[int | None, "Network buffers."]


class Limit(TypedDict):
    """The cgroup whose limit was hit."""

    cgroup: Annotated[str | None, "The cgroup whose limit was hit; null if a log has only its content."]
    level: Annotated[Level, "The kind of that cgroup: the container's own, its pod's, a slice's, ..."]
    usage_bytes: Annotated[int | None, "Memory charged to the cgroup when the OOM killer started."]
    limit_bytes: Annotated[int | None, "The limit; 9223372036854771712 is the kernel's value for no limit."]
    failcnt: Annotated[int | None, "Number of failed charges; since Linux 6.14 only cgroup v1 counts them."]
    swap_usage_bytes: Annotated[int | None, "Swap charged to the cgroup."]
    swap_limit_bytes: Annotated[int | None, "The swap limit (cgroup v2)."]
    memsw_usage_bytes: Annotated[int | None, "Memory plus swap charged to the cgroup (cgroup v1)."]
    memsw_limit_bytes: Annotated[int | None, "The limit for memory plus swap (cgroup v1)."]
    breakdown: Annotated[Breakdown | None, "The memory in the cgroup by kind."]


class Ancestor(TypedDict):
    """A process above the victim."""

    pid: Annotated[int, "Process id in the host's PID namespace."]
    comm: Annotated[str, "Its name."]


class SharedMmProcess(TypedDict):
    """A process on the same memory."""

    pid: Annotated[int, "Process id in the host's PID namespace."]
    comm: Annotated[str, "Its name."]


class Victim(TypedDict):
    """The process that was killed."""

    pid: Annotated[int | None, "Process id (thread group id) in the host's PID namespace."]
    tid: Annotated[int, "The thread that the kernel named; differs from pid if the leader had exited."]
    ppid: Annotated[int | None, "Parent's process id."]
    comm: Annotated[str | None, "Process name, cut to 15 bytes by the kernel."]
    cmdline: Annotated[list[str] | None, "Command line."]
    exe: Annotated[str | None, "Path of the executable, inside the victim's mount namespace."]
    uid: Annotated[int | None, "User id in the host's user namespace."]
    namespace_pid: Annotated[int | None, "Process id inside its own PID namespace."]
    is_container_init: Annotated[bool | None, "Whether it was PID 1 of a PID namespace other than the host's."]
    started_at: Annotated[str | None, "When the process started."]
    oom_score_adj: Annotated[int | None, "`/proc/PID/oom_score_adj`: -1000 never, 1000 first."]
    points: Annotated[int | None, "The kernel's badness score, in pages; null for the other members of a group kill."]
    rss_bytes: Annotated[int | None, "Resident memory at the kill: anon + file + shmem."]
    anon_rss_bytes: Annotated[int | None, "Resident anonymous memory."]
    file_rss_bytes: Annotated[int | None, "Resident file mappings."]
    shmem_rss_bytes: Annotated[int | None, "Resident shared memory."]
    swap_bytes: Annotated[int | None, "Swapped-out memory."]
    total_vm_bytes: Annotated[int | None, "Virtual size."]
    page_tables_bytes: Annotated[int | None, "Page tables."]
    peak_rss_bytes: Annotated[int | None, "Largest resident size so far, as recorded by the kernel."]
    cgroup: Annotated[str | None, "Memory cgroup, from the root of the hierarchy."]
    ancestors: Annotated[
        list[Ancestor] | None,
        "Parent, the parent's parent, ... up to the init of its PID namespace, at most eight.",
    ]
    shared_mm: Annotated[
        list[SharedMmProcess] | None,
        "Other processes with the same memory (vfork, CLONE_VM): they die too, unlogged and uncounted by the kernel.",
    ]


class Trigger(TypedDict):
    """The process that requested memory."""

    pid: Annotated[int | None, "The process whose request for memory failed; not always the victim."]
    tid: Annotated[int | None, "The requesting thread."]
    comm: Annotated[str, "The thread's name."]
    uid: Annotated[int | None, "User id in the host's user namespace."]
    cgroup: Annotated[str | None, "Memory cgroup."]


class Candidate(TypedDict):
    """A process that the kernel scored."""

    pid: Annotated[int, "Process id."]
    comm: Annotated[str, "Process name."]
    points: Annotated[int | None, "The kernel's badness score, in pages; the highest is killed."]
    rss_bytes: Annotated[int | None, "Resident memory."]
    oom_score_adj: Annotated[int | None, "`oom_score_adj`."]


class Base(TypedDict):
    """What every record has."""

    schema: Annotated[int, "Version of this format; it increases only when a field changes its meaning."]
    time: Annotated[str | None, "Time of the event, RFC 3339, UTC, nanoseconds; null if a log does not have it."]
    seq: Annotated[int, "Number of the record in one run of oomtrace, from 0; a missing number is a lost line."]
    host: Host


class OomKill(Base):
    """A process was killed by the kernel's OOM killer."""

    type: Literal["oom_kill"]
    id: Annotated[str, "Identifies this kill; every reader of the same kill gets the same id."]
    source: Annotated[
        Source,
        "Origin: `bpf` all hooks, `bpf_tracepoints` a kernel without kprobes, `kernel_log` the kernel's report, "
        "used if no program was attached.",
    ]
    delayed: Annotated[
        bool,
        "Whether it was read seconds after the kill or later, for example because no oomtrace ran: values from /proc "
        "and the runtimes' files may be missing.",
    ]
    reduced: Annotated[bool, "Whether the ring buffer had room only for victim, time, size, cgroup and limit."]
    incident: Incident
    limit: Annotated[Limit | None, "The limit that was hit; null if it was no cgroup's, or is unknown."]
    victim: Victim
    trigger: Trigger | None
    candidates: Annotated[
        list[Candidate] | None, "The ten highest scores, the chosen process first; of a log the ten largest."
    ]
    candidates_scored: Annotated[int | None, "Number of processes that the kernel scored."]
    container: Annotated[Container | None, "The victim's container; null if it was in none."]
    kubernetes: Annotated[Kubernetes | None, "The victim's pod."]
    systemd: Annotated[Systemd | None, "The victim's unit."]
    owner: Annotated[Owner | None, OWNER_DESCRIPTION]
    network: Annotated[Network | None, "The victim's network namespace; null if its task could not be read."]
    truncated: Annotated[list[str], "Fields that were cut, by path (`victim.cmdline`)."]


class RuntimeVerdict(TypedDict):
    """The verdict of the container's runtime; runtimes differ on kills of a process other than the container's init."""

    oom_killed: Annotated[bool | None, "Whether the runtime reports the container as OOM killed."]
    exit_code: Annotated[int | None, "The container's exit code; null while it runs."]


class OomExit(Base):
    """A victim is gone."""

    type: Literal["oom_exit"]
    id: Annotated[str, "The id of its oom_kill record."]
    incident_id: Annotated[str, "The incident's id, as in that record."]
    pid: Annotated[int, "Process id (thread group id)."]
    after_ns: Annotated[
        int, "Time from the kill to the exit of the last thread (since Linux 6.16 before the memory is freed)."
    ]
    container_init_died: Annotated[
        bool | None, "Whether the init of its PID namespace, and so the container, died too; null on the host."
    ]
    runtime_verdict: Annotated[RuntimeVerdict | None, "The runtime's verdict, if its files show it."]


class SigkillVictim(TypedDict):
    """The process that was killed."""

    pid: Annotated[int, "Process id (thread group id) in the host's PID namespace."]
    tid: Annotated[int, "The thread that received the signal; all threads of the process die."]
    comm: Annotated[str, "That thread's name, cut to 15 bytes by the kernel."]
    uid: Annotated[int, "User id in the host's user namespace."]
    cgroup: Annotated[str | None, "Memory cgroup, from the root of the hierarchy."]
    is_container_init: Annotated[bool, "Whether it was PID 1 of a PID namespace other than the host's."]


class SigkillSender(TypedDict):
    """The process that sent the signal."""

    pid: Annotated[int, "Process id (thread group id) in the host's PID namespace."]
    tid: Annotated[int, "The thread that called kill(2) or a similar system call."]
    comm: Annotated[str, "The thread's name."]
    uid: Annotated[int, "User id in the host's user namespace."]
    cgroup: Annotated[str | None, "Memory cgroup, from the root of the hierarchy."]
    container: Annotated[Container | None, "The sender's container; null if it was in none."]
    kubernetes: Annotated[Kubernetes | None, "The sender's pod."]
    systemd: Annotated[Systemd | None, "The sender's unit."]
    owner: Annotated[Owner | None, OWNER_DESCRIPTION]


class Sigkill(Base):
    """A SIGKILL that the OOM killer did not send killed a process; `--sigkill` selects the processes."""

    type: Literal["sigkill"]
    id: Annotated[str, "Identifies this kill; every reader of the same kill gets the same id."]
    source: Annotated[Source, "Origin, as in `oom_kill`; never `kernel_log`."]
    delayed: Annotated[bool, "Whether it was read seconds after the kill or later, as in `oom_kill`."]
    victim: SigkillVictim
    sender: Annotated[
        SigkillSender | None, "The sender; null if the kernel itself sent it, or if the sender is unknown."
    ]
    from_kernel: Annotated[bool | None, "Whether the kernel itself sent it; null if only its effect was seen."]
    container: Annotated[Container | None, "The victim's container; null if it was in none."]
    kubernetes: Annotated[Kubernetes | None, "The victim's pod."]
    systemd: Annotated[Systemd | None, "The victim's unit."]
    owner: Annotated[Owner | None, OWNER_DESCRIPTION]
    truncated: Annotated[list[str], "Fields that were cut, by path (`container.labels`)."]


class Lost(Base):
    """Events that were seen but could not be written."""

    type: Literal["lost"]
    id: Annotated[
        str | None, "Identifies the report, which may be repeated after a SIGKILL of oomtrace; null: reported once."
    ]
    stage: Annotated[
        str,
        "Where: `ring_buffer` (full), `sigkill` (too many at once, or their ring buffer full), `decode` and `record` "
        "(malformed), `upgrade` (left by another version), "
        "`output:URI` (neither delivered nor kept), `spool:URI` (damaged), `rejected:URI` (refused by the other side).",
    ]
    count: Annotated[int, "Number of lost events or lines."]
    since: Annotated[str, "Begin: the latest time at which none was lost. End: `time`."]


class CgroupKills(TypedDict):
    """A cgroup's own count."""

    cgroup: Annotated[str, "A memory cgroup."]
    oom_kills: Annotated[int, "The cgroup's count of killed processes: in that time, or in all if `records` is null."]
    records: Annotated[int | None, "Kills in it of that time that have a record; null if their number is unknown."]


class Gap(Base):
    """The kernel counted more OOM kills than the stream has: some have no record."""

    type: Literal["gap"]
    id: Annotated[
        str | None, "Identifies the report, which may be repeated after a SIGKILL; a larger gap has the same `since`."
    ]
    since: Annotated[str | None, "Begin; null: since boot. End: `time`."]
    oom_kills: Annotated[int, "The kernel's count of that time."]
    records: Annotated[int, "Kills of that time that have a record, in this or an earlier run's stream."]
    missing: Annotated[int, "At least this number has none; the kernel counts a group kill's first victim twice."]
    cgroups: Annotated[
        list[CgroupKills],
        "Existing cgroups that counted more than was recorded; at most ten, fewer if the line gets too long.",
    ]


class Start(Base):
    """The tracer is attached: kills from now on are recorded."""

    type: Literal["start"]
    version: Annotated[str, "Version of oomtrace."]
    source: Annotated[Source, "Origin of the records, as in `oom_kill`."]
    engine: Annotated[Literal["core", "bcc"], "The engine that compiled the programs."]
    hooks: Annotated[list[str], "The hooks that the programs are attached to."]
    pinned: Annotated[bool, "Whether the capture continues in the kernel when oomtrace does not run."]
    adopted: Annotated[bool, "Whether an earlier run attached the programs: kills of the time between are recorded."]
    sigkill: Annotated[Literal["containers", "all", "off"], "The processes whose SIGKILLs are recorded (`--sigkill`)."]
    oom_kills: Annotated[int | None, "The kernel's own count since boot (`oom_kill` in /proc/vmstat)."]


class Stop(Base):
    """The tracer stopped normally."""

    type: Literal["stop"]
    oom_kills: Annotated[int | None, "The kernel's own count since boot; it counts a group kill's first victim twice."]
    records: Annotated[int, "oom_kill records written by this run."]
    filtered: Annotated[int, "OOM kills that `--only` or `--except` excluded."]
    lost: Annotated[int, "Events lost by this run."]
    metadata_errors: Annotated[int, "Files about containers that could not be read, or not in time."]


Record = OomKill | OomExit | Sigkill | Lost | Gap | Start | Stop
