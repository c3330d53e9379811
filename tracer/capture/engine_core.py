# SPDX-License-Identifier: Apache-2.0
"""The ``core`` engine: libbpf loads the CO-RE object, compiled beforehand, on kernels with BTF."""

import ctypes
import os
import platform
from collections.abc import Sequence

from tracer import PACKAGE
from tracer.base.errors import EXIT_UNSUPPORTED, TracerError
from tracer.capture.programs import MAPS, Hook, LoadedPrograms, Settings, entry_count
from tracer.linux import libbpf

OBJECTS = os.path.join(PACKAGE, "objects")
_ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}


class RawSettings(ctypes.Structure):
    """``settings`` in bpf/engine.h."""

    _fields_ = [
        ("stats_index", ctypes.c_uint64),
        ("cpus", ctypes.c_uint32),
        ("kprobes", ctypes.c_uint32),
        ("stats_index_size", ctypes.c_uint32),
        ("sigkill", ctypes.c_uint32),
    ]


def object_path() -> str:
    """The path of the compiled programs for this machine.

    Raises TracerError (exit code 3) if there are none.
    """
    machine = platform.machine()
    path = os.path.join(OBJECTS, f"oomtrace.{_ARCHITECTURES.get(machine, machine)}.bpf.o")
    if not os.path.exists(path):
        raise TracerError(
            f"there are no compiled BPF programs for {machine} ({path} does not exist)",
            "in a checkout run: make bpf; otherwise use --engine bcc",
            EXIT_UNSUPPORTED,
        )
    return path


def open_object() -> int:
    """Open the libbpf object, without loading it; raises OSError, or TracerError as object_path() does."""
    opened = libbpf.library().bpf_object__open_file(object_path().encode(), None)
    if not opened:
        raise libbpf.last_error()
    return int(opened)


def load_programs(hooks: Sequence[Hook], settings: Settings, cmdlines: int) -> LoadedPrograms:
    """Load the programs of ``hooks``; ``cmdlines`` is the number of entries of that map.

    Raises OSError if the kernel refuses one.
    """
    library = libbpf.library()
    opened = open_object()
    try:
        _configure_object(opened, settings, cmdlines)
        found: dict[str, int] = {}
        hooked = {hook.program for hook in hooks}
        program = library.bpf_object__next_program(opened, None)
        while program:
            name = library.bpf_program__name(program).decode()
            if name in hooked:
                found[name] = program
            else:
                library.bpf_program__set_autoload(program, False)
            program = library.bpf_object__next_program(opened, program)
        if library.bpf_object__load(opened):
            raise libbpf.last_error()
        programs = {name: os.dup(library.bpf_program__fd(program)) for name, program in found.items()}
        maps = {
            name: os.dup(library.bpf_map__fd(library.bpf_object__find_map_by_name(opened, name.encode())))
            for name in MAPS
        }
    finally:
        library.bpf_object__close(opened)
    return LoadedPrograms(programs, maps)


def _configure_object(opened: int, settings: Settings, cmdlines: int) -> None:
    """Set the constants and the sizes of maps, before loading."""
    library = libbpf.library()
    size = ctypes.c_size_t()
    section = library.bpf_object__find_map_by_name(opened, b".rodata.settings")
    value = library.bpf_map__initial_value(section, ctypes.byref(size)) if section else None
    if not value or size.value != ctypes.sizeof(RawSettings):
        raise TracerError(f"{object_path()} is of another version of oomtrace", "run: make bpf", EXIT_UNSUPPORTED)
    raw = RawSettings(**settings._asdict())
    ctypes.memmove(value, ctypes.byref(raw), size.value)
    found = library.bpf_object__next_map(opened, None)
    while found:
        name, kind = library.bpf_map__name(found).decode(), library.bpf_map__type(found)
        entries = entry_count(name, kind, library.bpf_map__max_entries(found), cmdlines, settings.cpus)
        library.bpf_map__set_max_entries(found, entries)
        found = library.bpf_object__next_map(opened, found)
