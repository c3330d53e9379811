# SPDX-License-Identifier: Apache-2.0
"""The ``bcc`` engine: the same programs, compiled at start, for kernels without BTF or with ``--engine bcc``.

bcc takes 150 MB once it has compiled something, so a child runs it (engine_bcc_child.py).  The daemon creates the maps;
the child compiles and loads the programs, which use them, sends back their descriptors, and exits.
"""

import ctypes
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any

import orjson

from tracer import PACKAGE
from tracer.base.errors import EXIT_UNSUPPORTED, TracerError
from tracer.capture import engine_core
from tracer.capture.programs import COUNTER_MISREAD, MAPS, Hook, LoadedPrograms, ProgramCounters, Settings, entry_count
from tracer.linux import libbpf

CHILD = os.path.join(os.path.dirname(__file__), "engine_bcc_child.py")
SOURCES = (
    os.path.join(PACKAGE, "bpf"),  # in an installed package
    os.path.join(PACKAGE, os.pardir, "bpf"),
)
SYSTEM_PYTHON = "/usr/bin/python3"
"""Distributions install bcc for their own Python; oomtrace may run with another one."""
OWN_PYTHON = "/proc/self/exe"
"""Instead of sys.executable, which is oomtrace's process title."""
COMPILE_TIMEOUT_S = 600
PROGRAMS_MAX = 64
BCC_PACKAGES = "apt install python3-bpfcc (Debian, Ubuntu), dnf install python3-bcc (Fedora, RHEL)"
NO_BCC = 42
"""The child's exit status if its Python has no bcc."""


def source_directory() -> str:
    """The directory of the programs' C source.

    Raises TracerError (exit code 3) if it is not installed.
    """
    for directory in SOURCES:
        if os.path.exists(f"{directory}/oomtrace.bpf.c"):
            return os.path.realpath(directory)
    raise TracerError("the BPF sources are not installed", "reinstall oomtrace", EXIT_UNSUPPORTED)


def source_files() -> list[str]:
    """All files that determine the compiled programs; raises TracerError as source_directory() does."""
    folder, modules = source_directory(), os.path.dirname(__file__)
    found = (f"{parent}/{name}" for parent, _, names in os.walk(folder) for name in names)
    return [*sorted(path for path in found if path.endswith((".c", ".h"))), CHILD, f"{modules}/btf_offsets.py"]


def kernel_headers() -> str:
    """The directory of the running kernel's headers.

    Raises TracerError (exit code 3) if they are not installed.
    """
    release = os.uname().release
    build = f"/lib/modules/{release}/build"
    if not os.path.exists(f"{build}/include"):
        raise TracerError(
            "engine bcc requires the kernel's type information (BTF) or its headers, and this host has neither",
            f"apt install python3-bpfcc linux-headers-{release} (Debian, Ubuntu), "
            f"dnf install python3-bcc kernel-devel-{release} (Fedora, RHEL)",
            EXIT_UNSUPPORTED,
        )
    return build


def load_programs(
    hooks: Sequence[Hook], settings: Settings, required: frozenset[str], cmdlines: int, btf: bool
) -> LoadedPrograms:
    """Compile and load the programs of ``hooks``; programs that are not ``required`` may fail.

    Raises OSError if the kernel refuses a required one, TracerError if bcc, BTF and headers, or the source are missing.
    """
    request = {
        "sources": source_directory(),
        "headers": None if btf else kernel_headers(),
        "settings": settings._asdict(),
        "programs": sorted({(hook.program, hook.kind == "raw_tp", hook.program in required) for hook in hooks}),
    }
    maps = _create_maps(cmdlines, settings.cpus)
    programs: list[int] = []
    try:
        reply = _compile_programs({**request, "maps": maps}, programs)
        if reply["error"]:
            raise OSError(reply["errno"], reply["error"])
    except BaseException:
        for descriptor in (*programs, *maps.values()):
            os.close(descriptor)
        raise
    for name in maps.keys() - set(MAPS):
        os.close(maps.pop(name))
    return LoadedPrograms(dict(zip(reply["loaded"], programs, strict=True)), maps)


def verify_offsets(maps: dict[str, int]) -> None:
    """Let a process exit, for which the attached programs compare its pid at the headers' offsets with the real one.

    Raises TracerError (exit code 3) if they differ.
    """
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    if ProgramCounters(maps).read(COUNTER_MISREAD):
        raise TracerError(
            "the kernel headers do not match the running kernel: structures have other layouts",
            f"install the headers of {os.uname().release}, or use --engine core",
            EXIT_UNSUPPORTED,
        )


def _create_maps(cmdlines: int, cpus: int) -> dict[str, int]:
    """Create the maps that the C source defines; their definitions are read from the compiled object."""
    library = libbpf.library()
    opened = engine_core.open_object()
    maps: dict[str, int] = {}
    options = libbpf.MapCreateOptions(sz=ctypes.sizeof(libbpf.MapCreateOptions))
    try:
        found = library.bpf_object__next_map(opened, None)
        while found:
            name, kind = library.bpf_map__name(found), library.bpf_map__type(found)
            entries = entry_count(name.decode(), kind, library.bpf_map__max_entries(found), cmdlines, cpus)
            if b"." not in name:  # .rodata and others are internal to the object
                options.map_flags = library.bpf_map__map_flags(found)
                descriptor = library.bpf_map_create(
                    kind,
                    name[:15],
                    library.bpf_map__key_size(found),
                    library.bpf_map__value_size(found),
                    entries,
                    ctypes.byref(options),
                )
                if descriptor < 0:
                    raise libbpf.last_error()
                maps[name.decode()] = descriptor
            found = library.bpf_object__next_map(opened, found)
    finally:
        library.bpf_object__close(opened)
    return maps


def _compile_programs(request: dict[str, Any], programs: list[int]) -> dict[str, Any]:
    """The child's reply; appends the descriptors of the loaded programs to ``programs``."""
    for python in (SYSTEM_PYTHON, OWN_PYTHON):
        if not os.access(python, os.X_OK):
            continue
        status, answer, messages = _run_child(python, request, programs)
        if answer:
            reply: dict[str, Any] = orjson.loads(answer)
            return reply
        if status != NO_BCC:
            raise TracerError(
                f"bcc cannot compile the programs: {_first_error_line(messages)}",
                "use --engine core, or run: oomtrace doctor",
            )
    raise TracerError(
        "engine bcc requires the Python module bcc, which is not installed",
        BCC_PACKAGES,
        EXIT_UNSUPPORTED,
    )


def _run_child(python: str, request: dict[str, Any], programs: list[int]) -> tuple[int, bytes, bytes]:
    """The child's exit status, its reply, and its output."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    output = os.memfd_create("output")
    inherited = [theirs.fileno(), *request["maps"].values()]
    with ours, theirs:
        for descriptor in inherited:
            os.set_inheritable(descriptor, True)
        try:
            child = os.posix_spawn(
                python,
                [python, CHILD, str(theirs.fileno())],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)],
            )
        finally:
            for descriptor in inherited:
                os.set_inheritable(descriptor, False)
        theirs.close()
        ours.settimeout(COMPILE_TIMEOUT_S)
        try:
            ours.send(orjson.dumps(request))
            answer, received, _flags, _address = socket.recv_fds(ours, 1 << 16, PROGRAMS_MAX)
            programs.extend(received)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        except TimeoutError as error:
            os.kill(child, signal.SIGKILL)
            raise TracerError(
                f"bcc has not compiled the programs within {COMPILE_TIMEOUT_S} s", "use --engine core"
            ) from error
        finally:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            messages = os.pread(output, 1 << 16, 0)
            os.close(output)
    return status, answer, messages


def _first_error_line(messages: bytes) -> str:
    lines = messages.decode("utf-8", "backslashreplace").splitlines()
    return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no message")
