# SPDX-License-Identifier: Apache-2.0
"""The record model: the type of every record that oomtrace writes, field by field as in the JSON.

Records are plain dictionaries, and their types are declared only here.  The JSON Schema, the record reference
(docs/record.md) and the manual page are generated from these annotations.  TypedDict takes 3 MB less than dataclasses.

Conventions: integers in base units with the unit in the name; ``None`` for "unknown"; RFC 3339 times in UTC with
nanoseconds.  Text that a container controls (comm, cgroup, command line) is decoded as UTF-8 with
``backslashreplace``, so that any bytes become valid JSON.
"""

from typing import Annotated, Literal, TypedDict

from tracer.records.owner import OWNER_DESCRIPTION, Container, Kubernetes, Network, Owner, Systemd

SCHEMA = 1
"""Value of `schema` in every record; it increases only when a field changes its meaning."""

Scope = Literal["memcg", "host", "cpuset", "mempolicy", "host_or_nodes", "sysrq"]
Level = Literal["root", "slice", "qos", "pod", "container", "unit", "other"]
Source = Literal["bpf", "bpf_tracepoints", "kernel_log"]

NO_LIMIT_BYTES = 0x7FFFFFFFFFFFF000
"""The kernel's value for "no limit" (PAGE_COUNTER_MAX with pages of 4 KiB)."""


class Host(TypedDict):
    """The host that the record comes from."""

    name: Annotated[
        str | None,
        "Host name (`uname -n`); the node's name in a pod (`NODE_NAME`); the host name in the log, for a log.",
    ]
    boot_id: Annotated[str | None, "The kernel's random id of this boot (`/proc/sys/kernel/random/boot_id`)."]
    kernel: Annotated[str | None, "Kernel release (`uname -r`); null for a log."]
    labels: Annotated[dict[str, str] | None, "Operator-defined labels (`--label`); null for a log."]


HOST_PLACEHOLDER: Host = {"name": "", "boot_id": None, "kernel": "", "labels": None}
"""Replaced by the host when the record is written."""


class Incident(TypedDict):
    """One invocation of the OOM killer, with one victim or, for a group kill, several."""

    id: Annotated[
        str, "Identifies the incident: one invocation of the OOM killer. All victims of a group kill share it."
    ]
    scope: Annotated[
        Scope | None,
        "What ran out of memory: `memcg` a cgroup at its limit, `host` the whole host, `cpuset` and `mempolicy` the "
        "NUMA nodes of a cpuset or of a memory policy; `host_or_nodes` one of the latter three, if a log does not say "
        "which; `sysrq` is a kill that was requested with SysRq-f.",
    ]
    group_kill: Annotated[
        bool | None, "Whether the kernel killed all processes of a cgroup, because of its `memory.oom.group`."
    ]
    victims: Annotated[int | None, "Number of processes killed in this incident; each has its own record."]
    gfp_mask: Annotated[int | None, "Allocation flags of the failed request, a number that depends on the kernel."]
    gfp_flags: Annotated[str | None, "The same flags by name, as in the kernel log (`GFP_KERNEL|__GFP_ZERO`)."]
    order: Annotated[int | None, "Size of the failed request: 2^order pages; -1 for SysRq-f."]
    total_pages: Annotated[
        int | None,
        "Memory in pages that `oom_score_adj` is relative to: the limit that was hit, or RAM plus swap. "
        "It is not the victim's size.",
    ]
    message: Annotated[str | None, "The kernel's text for the incident (`Memory cgroup out of memory`)."]


class Breakdown(TypedDict):
    """The memory charged to a cgroup, by kind."""

    anon_bytes: Annotated[int | None, "Anonymous memory: heaps and stacks."]
    file_bytes: Annotated[int | None, "Page cache, including tmpfs and shared memory."]
    shmem_bytes: Annotated[
        int | None,
        "tmpfs (`emptyDir` with `medium: Memory`, `/dev/shm`) and shared memory; unlike other page cache it cannot be "
        "dropped.",
    ]
    slab_bytes: Annotated[int | None, "Kernel objects (dentries, inodes, ...)."]
    kernel_bytes: Annotated[int | None, "All kernel memory, including slab; Linux 5.18 and later, or cgroup v1."]
    sock_bytes: Annotated[int | None, "Network buffers."]


class Limit(TypedDict):
    """The cgroup whose limit was hit."""

    cgroup: Annotated[
        str | None, "Path of the cgroup, from the root of the hierarchy; null if a log shows only its contents."
    ]
    level: Annotated[
        Level,
        "Whose limit it is: `container`, `pod`, `qos` (all pods of one QoS class), `unit`, `slice`, `root` or `other`.",
    ]
    usage_bytes: Annotated[int | None, "Memory charged to the cgroup when the OOM killer started."]
    limit_bytes: Annotated[
        int | None,
        "The memory limit (`memory.max`; a container's `resources.limits.memory`); 9223372036854771712 means no limit.",
    ]
    failcnt: Annotated[
        int | None, "Number of charges that failed at the limit; since Linux 6.14 only cgroup v1 counts them."
    ]
    swap_usage_bytes: Annotated[int | None, "Swap charged to the cgroup."]
    swap_limit_bytes: Annotated[int | None, "The swap limit (`memory.swap.max`, cgroup v2)."]
    memsw_usage_bytes: Annotated[int | None, "Memory plus swap charged to the cgroup (cgroup v1)."]
    memsw_limit_bytes: Annotated[int | None, "The limit of memory plus swap (cgroup v1)."]
    breakdown: Annotated[Breakdown | None, "The memory charged to the cgroup, by kind."]


class Ancestor(TypedDict):
    """A parent process of the victim."""

    pid: Annotated[int, "Process id in the host's PID namespace."]
    comm: Annotated[str, "Process name."]


class SharedMmProcess(TypedDict):
    """Another process with the victim's memory."""

    pid: Annotated[int, "Process id in the host's PID namespace."]
    comm: Annotated[str, "Process name."]


class Victim(TypedDict):
    """The process that was killed."""

    pid: Annotated[int | None, "Process id (thread group id) in the host's PID namespace."]
    tid: Annotated[int, "The thread that the kernel named; it differs from `pid` if the main thread had exited."]
    ppid: Annotated[int | None, "Process id of the parent."]
    comm: Annotated[str | None, "Process name, cut to 15 bytes by the kernel."]
    cmdline: Annotated[list[str] | None, "Command line, one string per argument; see `--redact`."]
    exe: Annotated[str | None, "Path of the executable in the victim's mount namespace (in the container)."]
    uid: Annotated[int | None, "User id in the host's user namespace."]
    namespace_pid: Annotated[int | None, "Process id in its own PID namespace (in the container)."]
    is_container_init: Annotated[
        bool | None, "Whether it was PID 1 of a PID namespace other than the host's; a container ends with its PID 1."
    ]
    started_at: Annotated[str | None, "When the process started."]
    oom_score_adj: Annotated[int | None, "`/proc/PID/oom_score_adj`, from -1000 (never killed) to 1000 (killed first)."]
    points: Annotated[int | None, "The kernel's badness score in pages; null for the other members of a group kill."]
    rss_bytes: Annotated[int | None, "Resident memory at the time of the kill: anonymous, file and shared."]
    anon_rss_bytes: Annotated[int | None, "Resident anonymous memory."]
    file_rss_bytes: Annotated[int | None, "Resident file mappings."]
    shmem_rss_bytes: Annotated[int | None, "Resident shared memory."]
    swap_bytes: Annotated[int | None, "Swapped-out memory."]
    total_vm_bytes: Annotated[int | None, "Virtual size."]
    page_tables_bytes: Annotated[int | None, "Page tables."]
    peak_rss_bytes: Annotated[
        int | None, "Largest resident size of the process until the kill, as recorded by the kernel (`VmHWM`)."
    ]
    cgroup: Annotated[str | None, "Path of its memory cgroup, from the root of the hierarchy."]
    ancestors: Annotated[
        list[Ancestor] | None,
        "Its parent, the parent's parent and so on, up to the init of its PID namespace; at most eight.",
    ]
    shared_mm: Annotated[
        list[SharedMmProcess] | None,
        "Other processes with the same memory (vfork, CLONE_VM). They die too, but the kernel neither logs nor counts "
        "them.",
    ]


class Trigger(TypedDict):
    """The process whose request for memory failed; it is not always the victim."""

    pid: Annotated[int | None, "Process id (thread group id) in the host's PID namespace."]
    tid: Annotated[int | None, "The requesting thread."]
    comm: Annotated[str, "Name of that thread."]
    uid: Annotated[int | None, "User id in the host's user namespace."]
    cgroup: Annotated[str | None, "Path of its memory cgroup."]


class Candidate(TypedDict):
    """A process that the kernel could have killed."""

    pid: Annotated[int, "Process id in the host's PID namespace."]
    comm: Annotated[str, "Process name."]
    points: Annotated[int | None, "The kernel's badness score in pages; the process with the highest is killed."]
    rss_bytes: Annotated[int | None, "Resident memory."]
    oom_score_adj: Annotated[int | None, "`/proc/PID/oom_score_adj`."]


class Base(TypedDict):
    """The fields that every record has."""

    schema: Annotated[int, "Version of the format; it increases only when a field changes its meaning."]
    time: Annotated[str | None, "Time of the event: RFC 3339 in UTC with nanoseconds; null if a log does not show it."]
    seq: Annotated[int, "Number of the record in this run of oomtrace, from 0; a missing number is a lost line."]
    host: Host


class OomKill(Base):
    """The kernel's OOM killer killed a process."""

    type: Literal["oom_kill"]
    id: Annotated[str, "Identifies this kill; every reader of the same kill gets the same id."]
    source: Annotated[
        Source,
        "Origin: `bpf` all hooks, `bpf_tracepoints` a kernel without kprobes, `kernel_log` the kernel's own report, "
        "for logs and for kills while no program was attached.",
    ]
    delayed: Annotated[
        bool,
        "Whether the kill was read seconds later or more, for example because oomtrace was not running: values from "
        "/proc and the runtimes' files may be missing.",
    ]
    reduced: Annotated[
        bool, "Whether the ring buffer was full, so that only victim, time, size, cgroup and limit were kept."
    ]
    incident: Incident
    limit: Annotated[Limit | None, "The cgroup limit that was hit; null if none was, or if it is unknown."]
    victim: Victim
    trigger: Trigger | None
    candidates: Annotated[
        list[Candidate] | None,
        "The processes with the ten highest scores, the chosen one first; for a log the ten largest.",
    ]
    candidates_scored: Annotated[int | None, "Number of processes that the kernel scored."]
    container: Annotated[Container | None, "The victim's container; null if it was in none."]
    kubernetes: Annotated[Kubernetes | None, "The victim's Kubernetes pod; null if it was in none."]
    systemd: Annotated[Systemd | None, "The victim's systemd unit."]
    owner: Annotated[Owner | None, OWNER_DESCRIPTION]
    network: Annotated[Network | None, "The victim's network namespace; null if its task could not be read."]
    truncated: Annotated[list[str], "Paths of the fields that were cut (`victim.cmdline`)."]


class RuntimeVerdict(TypedDict):
    """The state that the container's runtime reports; runtimes differ if a process other than PID 1 was killed."""

    oom_killed: Annotated[bool | None, "Whether the runtime reports the container as `OOMKilled`."]
    exit_code: Annotated[int | None, "The container's exit code; null while it runs."]


class OomExit(Base):
    """A victim has exited."""

    type: Literal["oom_exit"]
    id: Annotated[str, "The id of its `oom_kill` record."]
    incident_id: Annotated[str, "The id of the incident, as in that record."]
    pid: Annotated[int, "Process id (thread group id)."]
    after_ns: Annotated[
        int, "Time from the kill to the exit of the last thread; since Linux 6.16 before the memory is freed."
    ]
    container_init_died: Annotated[
        bool | None, "Whether PID 1 of its PID namespace died too, and the container with it; null on the host."
    ]
    runtime_verdict: Annotated[
        RuntimeVerdict | None,
        "The container's state according to its runtime; null if the runtime's files do not show it.",
    ]


class SigkillVictim(TypedDict):
    """The process that was killed."""

    pid: Annotated[int, "Process id (thread group id) in the host's PID namespace."]
    tid: Annotated[int, "The thread that received the signal; all threads of the process die."]
    comm: Annotated[str, "Name of that thread, cut to 15 bytes by the kernel."]
    uid: Annotated[int, "User id in the host's user namespace."]
    cgroup: Annotated[str | None, "Path of its memory cgroup, from the root of the hierarchy."]
    is_container_init: Annotated[
        bool, "Whether it was PID 1 of a PID namespace other than the host's; a container ends with its PID 1."
    ]


class SigkillSender(TypedDict):
    """The process that sent the signal."""

    pid: Annotated[int, "Process id (thread group id) in the host's PID namespace."]
    tid: Annotated[int, "The thread that called kill(2) or a similar system call."]
    comm: Annotated[str, "Name of that thread."]
    uid: Annotated[int, "User id in the host's user namespace."]
    cgroup: Annotated[str | None, "Path of its memory cgroup, from the root of the hierarchy."]
    container: Annotated[Container | None, "The sender's container; null if it was in none."]
    kubernetes: Annotated[Kubernetes | None, "The sender's Kubernetes pod; null if it was in none."]
    systemd: Annotated[Systemd | None, "The sender's systemd unit."]
    owner: Annotated[Owner | None, OWNER_DESCRIPTION]


class Sigkill(Base):
    """A SIGKILL that the OOM killer did not send killed a process; `--sigkill` selects the processes."""

    type: Literal["sigkill"]
    id: Annotated[str, "Identifies this kill; every reader of the same kill gets the same id."]
    source: Annotated[Source, "Origin, as in `oom_kill`; never `kernel_log`."]
    delayed: Annotated[bool, "Whether the kill was read seconds later or more, as in `oom_kill`."]
    victim: SigkillVictim
    sender: Annotated[
        SigkillSender | None,
        "The process that sent the signal; null if the kernel sent it, or if the sender is unknown.",
    ]
    from_kernel: Annotated[bool | None, "Whether the kernel sent it; null if only its effect was seen."]
    container: Annotated[Container | None, "The victim's container; null if it was in none."]
    kubernetes: Annotated[Kubernetes | None, "The victim's Kubernetes pod; null if it was in none."]
    systemd: Annotated[Systemd | None, "The victim's systemd unit."]
    owner: Annotated[Owner | None, OWNER_DESCRIPTION]
    truncated: Annotated[list[str], "Paths of the fields that were cut (`container.labels`)."]


class Lost(Base):
    """Events that occurred but could not be written."""

    type: Literal["lost"]
    id: Annotated[
        str | None,
        "Identifies the report, which may be repeated after a SIGKILL of oomtrace; null: it is written once.",
    ]
    stage: Annotated[
        str,
        "Where they were lost: `ring_buffer` (full), `sigkill` (rate limit, or ring buffer full), `decode` and "
        "`record` (malformed), `upgrade` (left by another version), `output:URI` (neither delivered nor kept), "
        "`spool:URI` (damaged), `rejected:URI` (rejected by the receiver).",
    ]
    count: Annotated[int, "Number of lost events or lines."]
    since: Annotated[str, "Begin of the period: the latest time at which nothing was lost. Its end is `time`."]


class CgroupKills(TypedDict):
    """A cgroup's own count of OOM kills."""

    cgroup: Annotated[str, "Path of a memory cgroup."]
    oom_kills: Annotated[
        int, "The cgroup's count of killed processes: in the period, or in total if `records` is null."
    ]
    records: Annotated[
        int | None, "Kills in the cgroup and period that have a record; null if their number is unknown."
    ]


class Gap(Base):
    """The kernel counted more OOM kills than there are records: some have no record."""

    type: Literal["gap"]
    id: Annotated[
        str | None,
        "Identifies the report, which may be repeated after a SIGKILL of oomtrace; a larger gap has the same `since`.",
    ]
    since: Annotated[str | None, "Begin of the period; null: since boot. Its end is `time`."]
    oom_kills: Annotated[int, "The kernel's count of OOM kills in the period."]
    records: Annotated[int, "Kills in the period that have a record, from this or an earlier run."]
    missing: Annotated[
        int, "Kills without a record, at least; the kernel counts the first victim of a group kill twice."
    ]
    cgroups: Annotated[
        list[CgroupKills],
        "Existing cgroups that counted more kills than were recorded; at most ten, fewer if the line is too long.",
    ]


class Start(Base):
    """oomtrace is attached: OOM kills from now on are recorded."""

    type: Literal["start"]
    version: Annotated[str, "Version of oomtrace."]
    source: Annotated[Source, "Origin of the records that follow, as in `oom_kill`."]
    engine: Annotated[
        Literal["core", "bcc"], "How the programs were compiled: `core` ahead of time (CO-RE), `bcc` on this host."
    ]
    hooks: Annotated[list[str], "The kernel hooks that the programs are attached to."]
    pinned: Annotated[bool, "Whether the capture continues in the kernel while oomtrace is not running."]
    adopted: Annotated[bool, "Whether an earlier run attached the programs: kills since then are recorded."]
    sigkill: Annotated[Literal["containers", "all", "off"], "The processes whose SIGKILLs are recorded (`--sigkill`)."]
    oom_kills: Annotated[int | None, "The kernel's count of OOM kills since boot (`oom_kill` in /proc/vmstat)."]


class Stop(Base):
    """oomtrace stopped normally."""

    type: Literal["stop"]
    oom_kills: Annotated[
        int | None, "The kernel's count of OOM kills since boot; it counts the first victim of a group kill twice."
    ]
    records: Annotated[int, "`oom_kill` records written by this run."]
    filtered: Annotated[int, "OOM kills that `--only` or `--except` excluded."]
    lost: Annotated[int, "Events lost by this run."]
    metadata_errors: Annotated[int, "Runtime files that could not be read, or not in time."]


Record = OomKill | OomExit | Sigkill | Lost | Gap | Start | Stop
