# SPDX-License-Identifier: Apache-2.0
"""Chooses engine and hooks for this host and attaches them."""

import errno
import os
import sys
import time
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tracer import __version__
from tracer.base.errors import EXIT_UNSUPPORTED, TracerError
from tracer.capture import engine_core, kernel_features
from tracer.capture.attach import attach_programs
from tracer.capture.pins import CaptureInfo, PinnedCapture, Pins
from tracer.capture.programs import AttachedPrograms, EngineName, Hook, Link, Settings
from tracer.capture.wire import EVENT_LAYOUT
from tracer.config.options import SIGKILL_SCOPES, SigkillOption
from tracer.linux import libbpf, privileges, procfs
from tracer.records.model import Base, Source, Start

CMDLINES_MIN, CMDLINES_MAX = 4096, 32768


class Capture(NamedTuple):
    attached: AttachedPrograms
    source: Source
    has_scores: bool
    """Whether the kernel's scoring of candidates is seen."""
    attached_ns: int
    """CLOCK_BOOTTIME when all programs were attached."""
    pinned: bool = False
    """It goes on when this process ends."""
    adopted: bool = False
    """It was there when this process began; its counters count since ``attached_ns``."""
    previous_captures: tuple[PinnedCapture, ...] = ()
    """Captures that have just ended: what is in them is to be read, up to ``attached_ns``, before they are removed."""

    @property
    def unseeded_cmdlines(self) -> int | None:
        """The map of command lines that lacks those of what ran before; None: it has them."""
        return None if self.adopted else self.attached.maps["cmdlines"]

    def start(self, base: Base, sigkill: SigkillOption) -> Start:
        """The record of a run's beginning; ``base`` is what every record has."""
        return {
            **base,
            "type": "start",
            "version": __version__,
            "source": self.source,
            "engine": self.attached.engine,
            "hooks": list(dict.fromkeys(f"{hook.kind}:{hook.target}" for hook in self.attached.hooks)),
            "pinned": self.pinned,
            "adopted": self.adopted,
            "sigkill": sigkill,
            "oom_kills": procfs.read_oom_kill_count(),
        }


def choose_engine(wanted: Literal["auto", "core", "bcc"], has_btf: bool) -> EngineName:
    """Raises TracerError (exit code 3) where the engine that is asked for cannot work here."""
    if wanted == "core" and not has_btf:
        raise TracerError(
            "engine core needs the kernel's type information (BTF), and /sys/kernel/btf/vmlinux is not there",
            "use --engine bcc (oomtrace doctor says what it needs), or a kernel built with CONFIG_DEBUG_INFO_BTF=y",
            EXIT_UNSUPPORTED,
        )
    if wanted == "auto":
        return "core" if has_btf else "bcc"
    return wanted


def start_capture(
    wanted: Literal["auto", "core", "bcc"], pins: str | None = None, sigkill: SigkillOption = "containers"
) -> Capture:
    """Attach to all that this kernel offers, or else to the tracepoints alone; ``sigkill`` tells whose SIGKILLs count.

    With ``pins``, a folder of a bpffs, the capture goes on when this process ends, if the kernel can do that; one that
    these very programs left there is adopted, and others end once the new one is at work.
    Raises TracerError: exit code 3 where not even the tracepoints work, 1 where another process has these pins.
    """
    place, unpinned = _open_pins(pins)
    found = kernel_features.detect_features()
    engine = choose_engine(wanted, found.btf)
    settings = Settings(
        cpus=libbpf.library().libbpf_num_possible_cpus(),
        kprobes=0,
        stats_index=found.stats_index.address,
        stats_index_size=found.stats_index.size,
        sigkill=SIGKILL_SCOPES.index(sigkill),
    )
    attempts: Sequence[bool] = (True, False) if found.kprobes else (False,)
    for kprobes in attempts:
        hooks = kernel_features.choose_hooks(found, kprobes)
        told = settings._replace(kprobes=int(kprobes))
        folder = place.folder(engine, fingerprint(engine, found.btf, hooks, told)) if place else ""
        if place and (adopted := place.adopt(folder)):
            return _pinned_capture(adopted)._replace(previous_captures=place.end_others(folder))
        required = kernel_features.REQUIRED | (kernel_features.REQUIRED_KPROBES if kprobes else frozenset())
        try:
            maps, links = _load_and_attach(engine, hooks, told, required, found.btf)
        except OSError as error:
            if kprobes and not libbpf.lacks_privilege(error):
                print(f"oomtrace: no kprobes ({error}); it goes on with tracepoints alone", file=sys.stderr)
                continue
            raise _attach_error(error) from error
        capture = _unpinned_capture(engine, maps, links, "bpf" if kprobes else "bpf_tracepoints")
        if place:
            try:
                capture = _pin_capture(place, folder, capture, links)
            except OSError as error:
                unpinned = error
            capture = capture._replace(previous_captures=place.end_others(folder))
        if unpinned:
            why = unpinned.strerror or unpinned
            print(f"oomtrace: nothing is pinned; while it does not run, kills are not seen ({why})", file=sys.stderr)
        for hook in hooks:
            if hook not in capture.attached.hooks:
                print(f"oomtrace: {hook.kind} {hook.target} cannot be hooked; what it shows is null", file=sys.stderr)
        return capture
    raise AssertionError("the last attempt returns or raises")


def fingerprint(engine: EngineName, btf: bool, hooks: Sequence[Hook], settings: Settings) -> str:
    """Tells programs, where they go and what they are told from any other; 8 hexadecimal digits."""
    if engine == "core":
        files = [engine_core.object_path()]
    else:
        from tracer.capture import engine_bcc  # what it needs stays in memory: only where it is used

        files = engine_bcc.source_files()
    told = zlib.crc32(repr((__version__, EVENT_LAYOUT, engine, btf, hooks, settings)).encode())
    for path in files:
        with open(path, "rb") as file:
            told = zlib.crc32(file.read(), told)
    return f"{told:08x}"


def _load_and_attach(
    engine: EngineName, hooks: Sequence[Hook], settings: Settings, required: frozenset[str], btf: bool
) -> tuple[dict[str, int], list[Link]]:
    """Maps and links; raises OSError where the kernel refuses."""
    cmdlines = min(max(2 * sum(1 for _ in procfs.list_pids()), CMDLINES_MIN), CMDLINES_MAX)
    if engine == "core":
        loaded = engine_core.load_programs(hooks, settings, cmdlines)
    else:
        from tracer.capture import engine_bcc  # what it needs stays in memory: only where it is used

        loaded = engine_bcc.load_programs(hooks, settings, required, cmdlines, btf)
    links: list[Link] = []
    try:
        links += attach_programs(loaded.programs, hooks, required)
        if engine == "bcc":
            engine_bcc.verify_offsets(loaded.maps)
    except BaseException:
        for descriptor in (*loaded.maps.values(), *(link.descriptor for link in links)):
            os.close(descriptor)
        raise
    finally:
        for program in loaded.programs.values():
            os.close(program)
    return loaded.maps, links


def _unpinned_capture(engine: EngineName, maps: dict[str, int], links: Sequence[Link], source: Source) -> Capture:
    """A capture that ends with this process."""
    open_links = [link.descriptor for link in links]

    def detach() -> None:
        while open_links:
            os.close(open_links.pop())

    hooks = tuple(link.hook for link in links)
    scores = any(hook.program == "on_oom_badness_return" for hook in hooks)
    return Capture(
        AttachedPrograms(engine, hooks, maps, detach), source, scores, time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    )


def _open_pins(path: str | None) -> tuple[Pins | None, OSError | None]:
    """The folder, or why it cannot be used; neither where none is wanted."""
    try:
        return (Pins(path) if path else None), None
    except OSError as error:
        return None, error


def _pin_capture(place: Pins, folder: str, capture: Capture, links: Sequence[Link]) -> Capture:
    """The capture, pinned; raises OSError where it cannot be."""
    about: CaptureInfo = {
        "layout": EVENT_LAYOUT,
        "version": __version__,
        "engine": capture.attached.engine,
        "fingerprint": folder.rpartition("-")[2],
        "source": capture.source,
        "scores": capture.has_scores,
        "hooks": [(hook.program, hook.kind, hook.target) for hook in capture.attached.hooks],
        "since_ns": capture.attached_ns,
    }
    pinned = place.pin(folder, about, capture.attached.maps, links)
    return _pinned_capture(pinned)._replace(adopted=False)


def _pinned_capture(pinned: PinnedCapture) -> Capture:
    """A capture that goes on when this process ends, unless it is told to detach."""
    about = pinned.about

    def detach() -> None:
        pinned.remove()
        for link in pinned.links:
            os.close(link)

    hooks = tuple(map(Hook._make, about["hooks"]))
    attached = AttachedPrograms(about["engine"], hooks, pinned.maps, detach)
    return Capture(attached, about["source"], about["scores"], about["since_ns"], pinned=True, adopted=True)


def _attach_error(error: OSError) -> TracerError:
    if libbpf.lacks_privilege(error):
        if os.geteuid() != 0:
            return TracerError("tracing the kernel needs root", "run it with sudo", EXIT_UNSUPPORTED)
        missing = ", ".join(privileges.missing_capabilities())
        return TracerError(
            f"the kernel refuses to load the programs ({error})",
            f"give the process {missing}" if missing else "see whether kernel lockdown or a sandbox forbids it",
            EXIT_UNSUPPORTED,
        )
    if error.errno in (errno.EINVAL, errno.ENOSYS, errno.ENOENT, errno.ESRCH):
        return TracerError(f"this kernel cannot run the programs ({error})", "see: oomtrace doctor", EXIT_UNSUPPORTED)
    return TracerError(f"attaching failed ({error})", "see: oomtrace doctor")
