# SPDX-License-Identifier: Apache-2.0
"""Chooses engine and hooks for this host, and attaches the programs or adopts a pinned capture."""

import errno
import os
import time
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tracer import __version__
from tracer.base.errors import EXIT_UNSUPPORTED, TracerError
from tracer.base.log import warn
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
    """The kernel's scoring of candidates is traced."""
    attached_ns: int
    """CLOCK_BOOTTIME when all programs were attached."""
    pinned: bool = False
    """The capture continues when this process ends."""
    adopted: bool = False
    """The capture is of an earlier process; its counters count since ``attached_ns``."""
    previous_captures: tuple[PinnedCapture, ...] = ()
    """Captures that have ended just now; their events up to ``attached_ns`` are to be read before they are removed."""

    @property
    def unseeded_cmdlines(self) -> int | None:
        """The map of command lines, without those of processes that started earlier; None if it has them."""
        return None if self.adopted else self.attached.maps["cmdlines"]

    def start(self, base: Base, sigkill: SigkillOption) -> Start:
        """The ``start`` record; ``base`` has the fields of every record."""
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


def choose_engine(option: Literal["auto", "core", "bcc"], has_btf: bool) -> EngineName:
    """The engine for the option ``--engine``; raises TracerError (exit code 3) if it cannot work on this host."""
    if option == "core" and not has_btf:
        raise TracerError(
            "engine core requires the kernel's type information (BTF), and /sys/kernel/btf/vmlinux does not exist",
            "use --engine bcc (oomtrace doctor shows what it requires), or a kernel with CONFIG_DEBUG_INFO_BTF=y",
            EXIT_UNSUPPORTED,
        )
    if option == "auto":
        return "core" if has_btf else "bcc"
    return option


def start_capture(
    engine_option: Literal["auto", "core", "bcc"],
    pins_dir: str | None = None,
    sigkill: SigkillOption = "containers",
) -> Capture:
    """Attach all hooks that this kernel has, or else the tracepoints only; ``sigkill`` selects SIGKILLs to record.

    With ``pins_dir``, a directory in a bpffs, the capture continues when this process ends, if the kernel can pin it.
    A capture of the same programs that is pinned there is adopted; others end once the new one is attached.
    Raises TracerError: exit code 3 if not even the tracepoints work, 1 if another process uses ``pins_dir``.
    """
    pins, pin_error = _open_pins(pins_dir)
    features = kernel_features.detect_features()
    engine = choose_engine(engine_option, features.btf)
    settings = Settings(
        cpus=libbpf.library().libbpf_num_possible_cpus(),
        kprobes=0,
        stats_index=features.stats_index.address,
        stats_index_size=features.stats_index.size,
        sigkill=SIGKILL_SCOPES.index(sigkill),
    )
    attempts: Sequence[bool] = (True, False) if features.kprobes else (False,)
    for kprobes in attempts:
        hooks = kernel_features.choose_hooks(features, kprobes)
        settings = settings._replace(kprobes=int(kprobes))
        folder = pins.folder(engine, fingerprint(engine, features.btf, hooks, settings)) if pins else ""
        if pins and (adopted := pins.adopt(folder)):
            return _pinned_capture(adopted)._replace(previous_captures=pins.end_others(folder))
        required = kernel_features.REQUIRED | (kernel_features.REQUIRED_KPROBES if kprobes else frozenset())
        try:
            maps, links = _load_and_attach(engine, hooks, settings, required, features.btf)
        except OSError as error:
            if kprobes and not libbpf.lacks_privilege(error):
                warn(f"cannot attach kprobes ({error}); continuing with tracepoints only")
                continue
            raise _attach_error(error) from error
        capture = _unpinned_capture(engine, maps, links, "bpf" if kprobes else "bpf_tracepoints")
        if pins:
            try:
                capture = _pin_capture(pins, folder, capture, links)
            except OSError as error:
                pin_error = error
            capture = capture._replace(previous_captures=pins.end_others(folder))
        if pin_error:
            reason = pin_error.strerror or pin_error
            warn(f"nothing is pinned ({reason}): kills are not traced while oomtrace does not run")
        for hook in hooks:
            if hook not in capture.attached.hooks:
                warn(f"cannot attach {hook.kind} {hook.target}; fields that need it are null")
        return capture
    raise AssertionError("the last attempt returns or raises")


def fingerprint(engine: EngineName, btf: bool, hooks: Sequence[Hook], settings: Settings) -> str:
    """Identifies programs, their hooks and their settings; 8 hexadecimal digits."""
    if engine == "core":
        files = [engine_core.object_path()]
    else:
        from tracer.capture import engine_bcc  # here, because its imports stay in memory

        files = engine_bcc.source_files()
    checksum = zlib.crc32(repr((__version__, EVENT_LAYOUT, engine, btf, hooks, settings)).encode())
    for path in files:
        with open(path, "rb") as file:
            checksum = zlib.crc32(file.read(), checksum)
    return f"{checksum:08x}"


def _load_and_attach(
    engine: EngineName, hooks: Sequence[Hook], settings: Settings, required: frozenset[str], btf: bool
) -> tuple[dict[str, int], list[Link]]:
    """Maps (name -> descriptor) and links; raises OSError if the kernel refuses a required program."""
    cmdlines = min(max(2 * sum(1 for _ in procfs.list_pids()), CMDLINES_MIN), CMDLINES_MAX)
    if engine == "core":
        loaded = engine_core.load_programs(hooks, settings, cmdlines)
    else:
        from tracer.capture import engine_bcc  # here, because its imports stay in memory

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
    """A capture that ends when this process ends."""
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
    """The pins of a directory, or why it cannot be used; neither if there is no directory."""
    try:
        return (Pins(path) if path else None), None
    except OSError as error:
        return None, error


def _pin_capture(pins: Pins, folder: str, capture: Capture, links: Sequence[Link]) -> Capture:
    """Pin the capture; raises OSError if it cannot be pinned."""
    info: CaptureInfo = {
        "layout": EVENT_LAYOUT,
        "version": __version__,
        "engine": capture.attached.engine,
        "fingerprint": folder.rpartition("-")[2],
        "source": capture.source,
        "scores": capture.has_scores,
        "hooks": [(hook.program, hook.kind, hook.target) for hook in capture.attached.hooks],
        "since_ns": capture.attached_ns,
    }
    pinned = pins.pin(folder, info, capture.attached.maps, links)
    return _pinned_capture(pinned)._replace(adopted=False)


def _pinned_capture(pinned: PinnedCapture) -> Capture:
    """A capture that continues when this process ends, unless detached."""
    info = pinned.info

    def detach() -> None:
        pinned.remove()
        for link in pinned.links:
            os.close(link)

    hooks = tuple(map(Hook._make, info["hooks"]))
    attached = AttachedPrograms(info["engine"], hooks, pinned.maps, detach)
    return Capture(attached, info["source"], info["scores"], info["since_ns"], pinned=True, adopted=True)


def _attach_error(error: OSError) -> TracerError:
    if libbpf.lacks_privilege(error):
        if os.geteuid() != 0:
            return TracerError("tracing the kernel requires root", "run oomtrace with sudo", EXIT_UNSUPPORTED)
        missing = ", ".join(privileges.missing_capabilities())
        return TracerError(
            f"the kernel refuses to load the programs ({error})",
            f"grant {missing}" if missing else "check kernel lockdown and the sandbox, then run: oomtrace doctor",
            EXIT_UNSUPPORTED,
        )
    if error.errno in (errno.EINVAL, errno.ENOSYS, errno.ENOENT, errno.ESRCH):
        return TracerError(f"this kernel cannot run the programs ({error})", "run: oomtrace doctor", EXIT_UNSUPPORTED)
    return TracerError(f"cannot attach the programs ({error})", "run: oomtrace doctor")
