# SPDX-License-Identifier: Apache-2.0
"""The ``bcc`` engine: the same programs, compiled now, for kernels without BTF or when asked for.

bcc weighs 150 MB once it has compiled something.  So a child does it: the daemon makes the maps, the child compiles
and attaches programs that use them, sends the links' descriptors back and leaves.  Programs stay attached for as long
as the descriptors are open, and the daemon stays as small as with the other engine.
"""

import ctypes
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import orjson

from tracer import engine_core, kernel_types, libbpf
from tracer.engine import COUNTER_MISREAD, Attached, Hook, Settings, read_counter
from tracer.errors import EXIT_UNSUPPORTED, TracerError

CHILD = os.path.join(os.path.dirname(__file__), "bcc_child.py")
SOURCES = (
    os.path.join(os.path.dirname(__file__), "bpf"),  # in an installed package
    os.path.join(os.path.dirname(__file__), os.pardir, "bpf"),
)
SYSTEM_PYTHON = "/usr/bin/python3"
"""Distributions install bcc for their own Python; oomtrace may run in another."""
COMPILE_TIMEOUT_S = 180
LINKS_MAX = 64
BTF = "/sys/kernel/btf/vmlinux"

_STAND_IN_PRELUDE = """#pragma once
typedef signed char __s8; typedef unsigned char __u8; typedef short __s16; typedef unsigned short __u16;
typedef int __s32; typedef unsigned int __u32; typedef long long __s64; typedef unsigned long long __u64;
typedef __s8 s8; typedef __u8 u8; typedef __s16 s16; typedef __u16 u16;
typedef __s32 s32; typedef __u32 u32; typedef __s64 s64; typedef __u64 u64;
typedef __u16 __be16; typedef __u32 __be32; typedef __u64 __be64; typedef __u16 __sum16; typedef __u32 __wsum;
typedef unsigned long uintptr_t; typedef unsigned long size_t; typedef int pid_t;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)
#define __aligned_u64 __u64 __attribute__((aligned(8)))
"""
_STAND_IN: dict[str, str] = {
    "linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n#define CONFIG_CC_STACKPROTECTOR 1\n",
    "linux/types.h": _STAND_IN_PRELUDE,
    "uapi/linux/types.h": "#include <linux/types.h>\n",
    "uapi/linux/bpf.h": '#include <linux/types.h>\n#include "/virtual/include/bcc/bpf.h"\n',
    "linux/version.h": "#define LINUX_VERSION_CODE 0\n#define KERNEL_VERSION(a, b, c) 0\n",
    **dict.fromkeys(
        ("linux/bpf_common.h", "linux/log2.h", "linux/compiler_types.h", "linux/sched.h", "asm/page.h",
         "uapi/linux/if_packet.h", "uapi/linux/ptrace.h", "linux/ptrace.h"),
        "",
    ),
}  # fmt: skip
"""Just enough of a kernel source tree for bcc's own headers; helper numbers are those that bcc brings along."""


def source_directory() -> str:
    for directory in SOURCES:
        if os.path.exists(f"{directory}/oomtrace.bpf.c"):
            return os.path.realpath(directory)
    raise TracerError("the BPF sources are not installed", "reinstall oomtrace", EXIT_UNSUPPORTED)


def find_python() -> str:
    """A Python that has bcc.

    Raises TracerError (exit code 3) where none has.
    """
    for python in dict.fromkeys((SYSTEM_PYTHON, sys.executable)):
        if not shutil.which(python):
            continue
        # The package "bcc" on PyPI is something else: only the tracing one has BPF.
        probe = subprocess.run(
            [python, "-c", "from bcc import BPF"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if probe.returncode == 0:
            return python
    raise TracerError(
        "engine bcc needs bcc's Python module, and there is none",
        "apt install python3-bpfcc (Debian, Ubuntu), dnf install python3-bcc (Fedora, RHEL)",
        EXIT_UNSUPPORTED,
    )


def kernel_headers() -> str:
    """Where the running kernel's headers are.

    Raises TracerError (exit code 3) where they are not installed.
    """
    release = os.uname().release
    build = f"/lib/modules/{release}/build"
    if not os.path.exists(f"{build}/include"):
        raise TracerError(
            "engine bcc needs the kernel's type information (BTF) or its headers, and there are neither",
            f"apt install linux-headers-{release} (Debian, Ubuntu), dnf install kernel-devel-{release} (Fedora, RHEL)",
            EXIT_UNSUPPORTED,
        )
    return build


def attach(hooks: Sequence[Hook], settings: Settings, required: frozenset[str], cmdlines: int) -> Attached:
    """Compile the programs of ``hooks`` and attach them; hooks that are not required may fail.

    Raises OSError where the kernel refuses, TracerError where there is nothing to compile with.
    """
    python = find_python()
    maps = _create_maps(cmdlines)
    try:
        with tempfile.TemporaryDirectory(prefix="oomtrace-") as folder:
            request = _prepare(folder, settings, maps)
            request["hooks"] = [(*hook, hook.program in required) for hook in hooks]
            attached, links = _run_child(python, request, list(maps.values()))
        # The child's own exit was the first task that the programs read.
        if read_counter(maps, COUNTER_MISREAD):
            for descriptor in links:
                os.close(descriptor)
            raise TracerError(
                "the kernel headers are not those of the running kernel: structures are laid out differently",
                "install the headers of this very kernel, or use --engine core",
                EXIT_UNSUPPORTED,
            )
    except BaseException:
        for descriptor in maps.values():
            os.close(descriptor)
        raise

    def detach() -> None:
        while links:
            os.close(links.pop())

    return Attached("bcc", tuple(Hook(*hook) for hook in attached), maps, detach)


def _create_maps(cmdlines: int) -> dict[str, int]:
    """The maps that the source defines, as the compiled object tells them: they are written down once."""
    library = libbpf.library()
    opened = engine_core.open_object()
    maps: dict[str, int] = {}
    try:
        found = library.bpf_object__next_map(opened, None)
        while found:
            name = library.bpf_map__name(found)
            entries = cmdlines if name == b"cmdlines" else library.bpf_map__max_entries(found)
            if b"." not in name:  # .rodata and the like belong to the object
                ctypes.set_errno(0)
                descriptor = library.bpf_map_create(
                    library.bpf_map__type(found),
                    name[:15],
                    library.bpf_map__key_size(found),
                    library.bpf_map__value_size(found),
                    entries,
                    None,
                )
                if descriptor < 0:
                    raise libbpf.last_error()
                maps[name.decode()] = descriptor
            found = library.bpf_object__next_map(opened, found)
    finally:
        library.bpf_object__close(opened)
    return maps


def _prepare(folder: str, settings: Settings, maps: dict[str, int]) -> dict[str, object]:
    """Write what bcc includes; the request for the child."""
    sources = source_directory()
    arch = "arm64" if platform.machine() == "aarch64" else "x86"
    flags = [f"-I{sources}", f"-I{folder}", "-DOOMTRACE_BCC", f"-D__TARGET_ARCH_{arch}", "-Wno-unused-function"]
    flags += [f"-DMAP_FD_{name}={descriptor}" for name, descriptor in maps.items()]
    flags += [f"-DSETTING_{name}={value}ULL" for name, value in settings._asdict().items()]
    if os.path.exists(BTF):
        with open(f"{sources}/kernel.h", encoding="utf-8") as file:
            types = kernel_types.from_btf(file.read(), kernel_types.Btf())
        kernel_source = folder
        for name, text in _STAND_IN.items():
            os.makedirs(os.path.dirname(f"{folder}/include/{name}"), exist_ok=True)
            _write(f"{folder}/include/{name}", text)
    else:
        kernel_source = kernel_headers()
        types = kernel_types.from_headers(kernel_source)
        flags.append("-DOOMTRACE_HEADERS")
    _write(f"{folder}/kernel_bcc.h", types)
    return {"source": f"{sources}/oomtrace.bpf.c", "flags": flags, "kernel_source": kernel_source}


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _run_child(python: str, request: dict[str, object], maps: list[int]) -> tuple[list[list[str]], list[int]]:
    """The hooks that are attached, and their links' descriptors."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        child = subprocess.Popen(
            [python, CHILD, str(theirs.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno(), *maps],
        )
        theirs.close()
        try:
            _, complaints = child.communicate(orjson.dumps(request), COMPILE_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            child.kill()
            child.wait()
            raise TracerError(f"bcc did not finish within {COMPILE_TIMEOUT_S} s", "use --engine core") from error
        ours.setblocking(False)
        try:
            answer, links, _flags, _address = socket.recv_fds(ours, 1 << 16, LINKS_MAX)
        except BlockingIOError:
            answer, links = b"", []
    if not answer:
        raise TracerError(f"bcc failed: {_first_error(complaints)}", "use --engine core, or see: oomtrace doctor")
    reply = orjson.loads(answer)
    if reply["error"]:
        for descriptor in links:
            os.close(descriptor)
        raise OSError(reply["errno"], reply["error"])
    return reply["attached"], list(links)


def _first_error(complaints: bytes) -> str:
    lines = complaints.decode("utf-8", "backslashreplace").splitlines()
    return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no message")
