# SPDX-License-Identifier: Apache-2.0
"""What this host can and cannot trace, and what to do about each missing thing."""

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
    """Without it nothing is traced at all."""
    finding: str
    remedy: str
    """Empty where the check is ok."""
    spare: bool = False
    """It is missed only where another one is missing, too."""


def run_checks() -> list[Check]:
    found = kernel_features.detect_features()
    bcc = _check_bcc()
    core = _check_core(found.btf)
    checks = (
        _check_privileges(),
        _check_libbpf(),
        *_check_lockdown(),
        core._replace(needed=not bcc.ok),
        bcc._replace(needed=not core.ok, spare=core.ok),
        _check_kprobes(found),
        _check_candidates(found),
        _check_breakdown(found),
        _check_tracefs(),
        _check_bpffs(),
        _check_kernel_log(),
        _check_memory_controller(),
        _check_openat2(),
        *_check_configuration(),
    )
    return [check._replace(remedy="") if check.ok else check for check in checks]


def can_trace(checks: Sequence[Check]) -> bool:
    return all(check.ok for check in checks if check.needed)


def summarize(checks: Sequence[Check]) -> str:
    if not can_trace(checks):
        return "This host cannot be traced yet: see MISSING."
    if all(check.ok or check.spare for check in checks):
        return "This host can be traced, with every field."
    return "This host can be traced; what is without stays null in the records."


def _check_privileges() -> Check:
    missing = ", ".join(privileges.missing_capabilities())
    finding = f"this process has no {missing}" if missing else "enough"
    return Check("privileges", not missing, True, finding, f"run it as root (sudo), or with {missing}")


def _check_libbpf() -> Check:
    try:
        libbpf.library()
    except TracerError as error:
        return Check("libbpf", False, True, error.message, error.hint)
    return Check("libbpf", True, True, "libbpf.so.1 loads", "")


def _check_lockdown() -> list[Check]:
    """Nothing where the kernel does not say (no securityfs, or no lockdown)."""
    try:
        with open(kernel_features.LOCKDOWN, encoding="ascii") as file:
            mode = file.read().partition("[")[2].partition("]")[0]
    except OSError:
        return []
    if mode != "confidentiality":
        return [Check("lockdown", True, True, mode, "")]
    finding = "mode confidentiality forbids BPF programs to read kernel memory"
    return [Check("lockdown", False, True, finding, "boot with lockdown=integrity, or without lockdown")]


def _check_core(btf: bool) -> Check:
    name = "engine core"
    if not btf:
        remedy = "a kernel with CONFIG_DEBUG_INFO_BTF=y, or engine bcc"
        return Check(name, False, True, f"the kernel shows no BTF ({kernel_features.BTF})", remedy)
    try:
        path = engine_core.object_path()
    except TracerError as error:
        return Check(name, False, True, error.message, error.hint)
    return Check(name, True, True, f"BTF and {os.path.basename(path)} are there", "")


def _check_bcc() -> Check:
    name = "engine bcc"
    probe = "from bcc import BPF"
    python = engine_bcc.SYSTEM_PYTHON
    # Not imported here: bcc takes 75 MB, and the distribution's is for the distribution's Python.
    if (
        not os.access(python, os.X_OK)
        # -I: or a bcc.py in the working directory would be it
        or subprocess.run(
            [python, "-I", "-c", probe], stdin=subprocess.DEVNULL, capture_output=True, check=False
        ).returncode
    ):
        return Check(name, False, False, f"{python} has no bcc", engine_bcc.BCC_PACKAGES)
    if not os.path.exists(kernel_features.BTF):
        try:
            engine_bcc.kernel_headers()
        except TracerError as error:
            return Check(name, False, False, error.message, error.hint)
    return Check(name, True, False, f"{python} has bcc", "")


def _check_kprobes(found: kernel_features.KernelFeatures) -> Check:
    if found.kprobes:
        return Check("kprobes", True, False, "the functions of the OOM path can be hooked", "")
    if not os.path.exists(kernel_features.KPROBE_PMU):
        finding = "this kernel has none (CONFIG_KPROBES, CONFIG_KPROBE_EVENTS)"
    else:
        finding = f"oom_kill_process is not in {kernel_features.KALLSYMS}"
    remedy = "tracepoints alone: limit and scope come from the kernel log's words; candidates and points stay null"
    return Check("kprobes", False, False, finding, remedy)


def _check_candidates(found: kernel_features.KernelFeatures) -> Check:
    ok = found.kprobes and "oom_badness" in found.symbols
    finding = ", ".join(found.symbols.get("oom_badness", ())) if ok else "the kernel's scoring cannot be seen"
    return Check("candidates", ok, False, finding, "candidates and points stay null")


def _check_breakdown(found: kernel_features.KernelFeatures) -> Check:
    name = "memory breakdown"
    if not found.kprobes:
        return Check(name, False, False, "needs kprobes", "limit.breakdown stays null")
    ok = found.stats_index.address != 0 or not _has_stats_index()
    finding = "readable" if ok else "mem_cgroup_stats_index is hidden (no CONFIG_KALLSYMS_ALL, or no CAP_SYSLOG)"
    return Check(name, ok, False, finding, "limit.breakdown stays null")


def _has_stats_index() -> bool:
    """Whether the kernel keeps memory statistics through a table, as it does since v6.11."""
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
    effect = "until then incident.gfp_flags stays null"
    unreadable = next((path for path in kernel_features.TRACEFS if _is_mounted(path, "tracefs")), None)
    if unreadable is not None:
        finding = f"{unreadable} is mounted, but this user may not read it"
        return Check(name, False, False, finding, f"run it as root (sudo); {effect}")
    return Check(name, False, False, "not mounted", f"mount -t tracefs tracefs {kernel_features.TRACEFS[0]}; {effect}")


def _check_bpffs() -> Check:
    folder = os.path.dirname(PINS_DIR)
    ok = _is_mounted(folder, "bpf")
    remedy = f"mount -t bpf bpf {folder}; until then nothing is traced while oomtrace does not run"
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
    remedy = "kills that nobody saw are told as gaps; reading it takes CAP_SYSLOG, and the device in a container"
    return Check("kernel log", ok, False, finding, remedy)


def _check_memory_controller() -> Check:
    with open("/proc/cgroups", encoding="ascii") as file:
        rows = [line.split() for line in file if line.startswith("memory")]
    ok = bool(rows) and rows[0][3] == "1"
    if not rows:  # since v6.13 v2-only controllers are not listed
        try:
            with open("/sys/fs/cgroup/cgroup.controllers", encoding="ascii") as file:
                ok = "memory" in file.read().split()
        except OSError:
            ok = False
    finding = "on" if ok else "off"
    remedy = "boot with cgroup_enable=memory; without it only the host itself can run out of memory"
    return Check("memory controller", ok, False, f"{finding} ({platform.release()})", remedy)


def _check_openat2() -> Check:
    name = "files of runtimes"
    try:
        tuple(safe_files.list_directory("/", count_max=1))
    except safe_files.UnreadableError as error:
        remedy = (
            "allow openat2() in the seccomp profile; systemd's RestrictSUIDSGID= forbids it, too; until then "
            "containers are known by id"
        )
        return Check(name, False, False, f"openat2() does not work ({error})", remedy)
    return Check(name, True, False, "openat2() works", "")


def _check_configuration() -> list[Check]:
    """The service's, with what the metrics port needs and asks for; nothing where there is none."""
    if not os.path.exists(CONFIG_FILE):
        return []
    from tracer.config.toml_file import ConfigFile  # what it needs would keep `run` from starting quickly
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
