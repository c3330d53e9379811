# SPDX-License-Identifier: Apache-2.0
"""Checks what this host can trace; each failed check has a remedy."""

import os
import platform
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from tracer.base.errors import TracerError
from tracer.capture import engine_bcc, engine_core, kernel_features
from tracer.config.options import CONFIG_FILE, PINS_DIR
from tracer.linux import libbpf, privileges, safe_files
from tracer.logs import kmsg


class Check(NamedTuple):
    name: str
    ok: bool
    needed: bool
    """Tracing requires it."""
    finding: str
    remedy: str
    """Empty if the check is ok."""
    spare: bool = False
    """Not used, because another check is ok."""


def run_checks() -> list[Check]:
    """All checks that apply to this host."""
    features = kernel_features.detect_features()
    bcc = _check_bcc()
    core = _check_core(features.btf)
    checks = (
        _check_privileges(),
        _check_libbpf(),
        *_check_lockdown(),
        core._replace(needed=not bcc.ok),
        bcc._replace(needed=not core.ok, spare=core.ok),
        _check_kprobes(features),
        _check_candidates(features),
        _check_breakdown(features),
        _check_tracefs(),
        _check_bpffs(),
        _check_kernel_log(),
        _check_memory_controller(),
        _check_openat2(),
        *_check_configuration(),
    )
    return [check._replace(remedy="") if check.ok else check for check in checks]


def can_trace(checks: Sequence[Check]) -> bool:
    """Whether all checks that tracing requires are ok."""
    return all(check.ok for check in checks if check.needed)


def summarize(checks: Sequence[Check]) -> str:
    """One sentence about all checks."""
    if not can_trace(checks):
        return "This host cannot be traced yet: see the checks marked MISSING."
    if all(check.ok or check.spare for check in checks):
        return "This host can be traced, with every field."
    return 'This host can be traced; fields that need a check marked "without" are null.'


def _check_privileges() -> Check:
    missing = ", ".join(privileges.missing_capabilities())
    finding = f"this process lacks {missing}" if missing else "sufficient"
    return Check("privileges", not missing, True, finding, f"run oomtrace as root (sudo), or with {missing}")


def _check_libbpf() -> Check:
    try:
        libbpf.library()
    except TracerError as error:
        return Check("libbpf", False, True, error.message, error.hint)
    return Check("libbpf", True, True, "libbpf.so.1 can be loaded", "")


def _check_lockdown() -> list[Check]:
    """No check if the kernel does not show its mode (no securityfs, or no lockdown)."""
    try:
        with open(kernel_features.LOCKDOWN, encoding="ascii") as file:
            mode = file.read().partition("[")[2].partition("]")[0]
    except OSError:
        return []
    if mode != "confidentiality":
        return [Check("lockdown", True, True, mode, "")]
    finding = "mode confidentiality prevents BPF programs from reading kernel memory"
    return [Check("lockdown", False, True, finding, "boot with lockdown=integrity, or without lockdown")]


def _check_core(btf: bool) -> Check:
    name = "engine core"
    if not btf:
        remedy = "use a kernel with CONFIG_DEBUG_INFO_BTF=y, or engine bcc"
        return Check(name, False, True, f"the kernel has no BTF ({kernel_features.BTF})", remedy)
    try:
        path = engine_core.object_path()
    except TracerError as error:
        return Check(name, False, True, error.message, error.hint)
    return Check(name, True, True, f"BTF and {os.path.basename(path)} are available", "")


def _check_bcc() -> Check:
    name = "engine bcc"
    probe = "from bcc import BPF"
    python = engine_bcc.SYSTEM_PYTHON
    # In a child: bcc takes 75 MB, and the distribution builds it for its own Python.
    if (
        not os.access(python, os.X_OK)
        # -I: otherwise a bcc.py in the working directory is imported
        or subprocess.run(
            [python, "-I", "-c", probe], stdin=subprocess.DEVNULL, capture_output=True, check=False
        ).returncode
    ):
        return Check(name, False, False, f"{python} has no module bcc", engine_bcc.BCC_PACKAGES)
    if not os.path.exists(kernel_features.BTF):
        try:
            engine_bcc.kernel_headers()
        except TracerError as error:
            return Check(name, False, False, error.message, error.hint)
    return Check(name, True, False, f"{python} has the module bcc", "")


def _check_kprobes(features: kernel_features.KernelFeatures) -> Check:
    if features.kprobes:
        return Check("kprobes", True, False, "available for the functions of the OOM path", "")
    if not os.path.exists(kernel_features.KPROBE_PMU):
        finding = "this kernel has no kprobes (CONFIG_KPROBES, CONFIG_KPROBE_EVENTS)"
    else:
        finding = f"oom_kill_process is not in {kernel_features.KALLSYMS}"
    remedy = "without kprobes limit and scope are read from the kernel log, and candidates and points are null"
    return Check("kprobes", False, False, finding, remedy)


def _check_candidates(features: kernel_features.KernelFeatures) -> Check:
    ok = features.kprobes and "oom_badness" in features.symbols
    finding = ", ".join(features.symbols.get("oom_badness", ())) if ok else "cannot hook oom_badness()"
    return Check("candidates", ok, False, finding, "candidates and points are null")


def _check_breakdown(features: kernel_features.KernelFeatures) -> Check:
    name = "memory breakdown"
    if not features.kprobes:
        return Check(name, False, False, "requires kprobes", "limit.breakdown is null")
    ok = features.stats_index.address != 0 or not _has_stats_index()
    finding = (
        "readable"
        if ok
        else "/proc/kallsyms does not show mem_cgroup_stats_index (requires CONFIG_KALLSYMS_ALL and CAP_SYSLOG)"
    )
    return Check(name, ok, False, finding, "limit.breakdown is null")


def _has_stats_index() -> bool:
    """Whether the kernel finds memory statistics through a table, as since v6.11 (bpf/memcg.h)."""
    try:
        from tracer.capture.btf_offsets import Btf

        btf = Btf()
    except OSError:
        return False
    member = btf.member("memcg_vmstats", "state")
    items = btf.enumerator("memcg_stat_item", "MEMCG_NR_STAT")
    return member is not None and items is not None and btf.type_size(member.type_id) // 8 < items


def _check_tracefs() -> Check:
    name, path = "tracefs", kernel_features.find_tracefs()
    if path is not None:
        return Check(name, True, False, path, "")
    effect = "until then incident.gfp_flags is null"
    unreadable = next((path for path in kernel_features.TRACEFS if _is_mounted(path, "tracefs")), None)
    if unreadable is not None:
        finding = f"{unreadable} is mounted, but this user cannot read it"
        return Check(name, False, False, finding, f"run oomtrace as root (sudo); {effect}")
    return Check(name, False, False, "not mounted", f"mount -t tracefs tracefs {kernel_features.TRACEFS[0]}; {effect}")


def _check_bpffs() -> Check:
    folder = os.path.dirname(PINS_DIR)
    ok = _is_mounted(folder, "bpf")
    remedy = f"mount -t bpf bpf {folder}; until then kills are not traced while oomtrace does not run"
    return Check("capture without a daemon", ok, False, f"{folder} is {'' if ok else 'not '}a bpffs", remedy)


def _is_mounted(path: str, kind: str) -> bool:
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
        return any(mount.split()[1:3] == [path, kind] for mount in mounts)


def _check_kernel_log() -> Check:
    try:
        kmsg.Kmsg().close()
    except OSError as error:
        finding, ok = f"{kmsg.PATH}: {error.strerror}", False
    else:
        finding, ok = kmsg.PATH, True
    remedy = "missed kills are reported as gaps; reading the log requires CAP_SYSLOG, and in a container the device"
    return Check("kernel log", ok, False, finding, remedy)


def _check_memory_controller() -> Check:
    with open("/proc/cgroups", encoding="ascii") as file:
        rows = [line.split() for line in file if line.startswith("memory")]
    ok = bool(rows) and rows[0][3] == "1"
    if not rows:  # v6.13 and later do not list v2-only controllers
        try:
            with open("/sys/fs/cgroup/cgroup.controllers", encoding="ascii") as file:
                ok = "memory" in file.read().split()
        except OSError:
            ok = False
    finding = "enabled" if ok else "disabled"
    remedy = "boot with cgroup_enable=memory; until then no cgroup has a memory limit"
    return Check("memory controller", ok, False, f"{finding} ({platform.release()})", remedy)


def _check_openat2() -> Check:
    name = "files of runtimes"
    try:
        tuple(safe_files.list_directory("/", count_max=1))
    except safe_files.UnreadableError as error:
        remedy = (
            "allow openat2() in the seccomp profile (systemd's RestrictSUIDSGID= also blocks it); until then "
            "containers have an id and no name"
        )
        return Check(name, False, False, f"openat2() fails ({error})", remedy)
    return Check(name, True, False, "openat2() works", "")


def _check_configuration() -> list[Check]:
    """The service's configuration file, with its metrics endpoints; no check if there is no file."""
    if not os.path.exists(CONFIG_FILE):
        return []
    from tracer.config.toml_file import ConfigFile  # its imports would delay the start of `run`
    from tracer.delivery.metrics import parse_endpoint

    name, shown = "configuration", []
    try:
        for endpoint in map(parse_endpoint, ConfigFile(CONFIG_FILE).options({}).metrics):
            if endpoint.access is not None:
                endpoint.access.check()
            shown.append(f"metrics at {endpoint.description}")
    except TracerError as error:
        return [Check(name, False, False, error.message, error.hint)]
    return [Check(name, True, False, "; ".join([f"{CONFIG_FILE} is valid", *shown]), "")]
