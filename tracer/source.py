# SPDX-License-Identifier: Apache-2.0
"""Chooses engine and hooks for this host and attaches them."""

import errno
import os
import sys
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tracer import engine_core, features, libbpf, privileges, process
from tracer.attach import attach as attach_programs
from tracer.engine import Attached, EngineName, Hook, Link, Settings
from tracer.errors import EXIT_UNSUPPORTED, TracerError
from tracer.event import Source

CMDLINES_MIN, CMDLINES_MAX = 4096, 32768


class Capture(NamedTuple):
    attached: Attached
    source: Source
    scores: bool
    """Whether the kernel's scoring of candidates is seen."""


def choose_engine(wanted: Literal["auto", "core", "bcc"], has_btf: bool) -> EngineName:
    """Raises TracerError (exit code 3) where the engine that is asked for cannot work here."""
    if wanted == "core" and not has_btf:
        raise TracerError(
            "engine core needs the kernel's type information (BTF), and /sys/kernel/btf/vmlinux is not there",
            "use --engine bcc, or a kernel built with CONFIG_DEBUG_INFO_BTF=y",
            EXIT_UNSUPPORTED,
        )
    if wanted == "auto":
        return "core" if has_btf else "bcc"
    return wanted


def attach(wanted: Literal["auto", "core", "bcc"]) -> Capture:
    """Attach to all that this kernel offers, or else to the tracepoints alone.

    Raises TracerError (exit code 3) where not even that works.
    """
    found = features.detect()
    engine = choose_engine(wanted, found.btf)
    settings = Settings(
        cpus=libbpf.library().libbpf_num_possible_cpus(),
        kprobes=0,
        stats_index=found.stats_index.address,
        stats_index_size=found.stats_index.size,
    )
    attempts: Sequence[bool] = (True, False) if found.kprobes else (False,)
    for kprobes in attempts:
        hooks = features.hooks(found, kprobes)
        required = features.REQUIRED | (features.REQUIRED_KPROBES if kprobes else frozenset())
        try:
            maps, links = _attach(engine, hooks, settings._replace(kprobes=int(kprobes)), required, found.btf)
        except OSError as error:
            if kprobes and not libbpf.lacks_privilege(error):
                print(f"oomtrace: no kprobes ({error}); it goes on with tracepoints alone", file=sys.stderr)
                continue
            raise _explain(error) from error
        capture = _started(engine, maps, links, "bpf" if kprobes else "bpf_tracepoints")
        process.seed_cmdlines(maps["cmdlines"])
        for hook in hooks:
            if hook not in capture.attached.hooks:
                print(f"oomtrace: {hook.kind} {hook.target} cannot be hooked; what it shows is null", file=sys.stderr)
        return capture
    raise AssertionError("the last attempt returns or raises")


def _attach(
    engine: EngineName, hooks: Sequence[Hook], settings: Settings, required: frozenset[str], btf: bool
) -> tuple[dict[str, int], list[Link]]:
    """Maps and links; raises OSError where the kernel refuses."""
    cmdlines = min(max(2 * sum(1 for _ in process.pids()), CMDLINES_MIN), CMDLINES_MAX)
    if engine == "core":
        loaded = engine_core.load(hooks, settings, cmdlines)
    else:
        from tracer import engine_bcc  # what it needs stays in memory: only where it is used

        loaded = engine_bcc.load(hooks, settings, required, cmdlines, btf)
    links: list[Link] = []
    try:
        links += attach_programs(loaded.programs, hooks, required)
        if engine == "bcc":
            engine_bcc.verify(loaded.maps)
    except BaseException:
        for descriptor in (*loaded.maps.values(), *(link.descriptor for link in links)):
            os.close(descriptor)
        raise
    finally:
        for program in loaded.programs.values():
            os.close(program)
    return loaded.maps, links


def _started(engine: EngineName, maps: dict[str, int], links: Sequence[Link], source: Source) -> Capture:
    """A capture that ends with this process."""
    open_links = [link.descriptor for link in links]

    def detach() -> None:
        while open_links:
            os.close(open_links.pop())

    hooks = tuple(link.hook for link in links)
    scores = any(hook.program == "on_oom_badness_return" for hook in hooks)
    return Capture(Attached(engine, hooks, maps, detach), source, scores)


def _explain(error: OSError) -> TracerError:
    if libbpf.lacks_privilege(error):
        if os.geteuid() != 0:
            return TracerError("tracing the kernel needs root", "run it with sudo", EXIT_UNSUPPORTED)
        missing = ", ".join(privileges.missing())
        return TracerError(
            f"the kernel refuses to load the programs ({error})",
            f"give the process {missing}" if missing else "see whether kernel lockdown or a sandbox forbids it",
            EXIT_UNSUPPORTED,
        )
    if error.errno in (errno.EINVAL, errno.ENOSYS, errno.ENOENT, errno.ESRCH):
        return TracerError(f"this kernel cannot run the programs ({error})", "see: oomtrace doctor", EXIT_UNSUPPORTED)
    return TracerError(f"attaching failed ({error})", "see: oomtrace doctor")
