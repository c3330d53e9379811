# SPDX-License-Identifier: Apache-2.0
"""The child of the ``bcc`` engine: compiles and loads the programs, sends their descriptors, and exits.

A script for the system's Python, which has bcc but possibly none of oomtrace's dependencies: it imports only bcc, the
standard library, and modules of oomtrace that need no more.
Its argument is the number of a socket.  In: JSON.  Out: JSON and descriptors.
"""

import ctypes
import json
import os
import platform
import re
import socket
import sys
import tempfile
from typing import Any

sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tracer.capture import btf_offsets  # noqa: E402 - found only with this path

NO_BCC = 42

_TYPES = """#pragma once
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
_STUB_HEADERS: dict[str, str] = {
    "linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n#define CONFIG_CC_STACKPROTECTOR 1\n",
    "linux/types.h": _TYPES,
    "uapi/linux/types.h": "#include <linux/types.h>\n",
    "uapi/linux/bpf.h": '#include <linux/types.h>\n#include "/virtual/include/bcc/bpf.h"\n',
    "linux/version.h": "#define LINUX_VERSION_CODE 0\n#define KERNEL_VERSION(a, b, c) 0\n",
    **dict.fromkeys(
        ("linux/bpf_common.h", "linux/log2.h", "linux/compiler_types.h", "linux/sched.h", "asm/page.h",
         "uapi/linux/if_packet.h", "uapi/linux/ptrace.h", "linux/ptrace.h"),
        "",
    ),
}  # fmt: skip
"""A minimal kernel source tree for bcc's own headers, which have the helpers' numbers."""


_HOOK_INCLUDE = re.compile(r'^#include "(hooks/\w+\.h)"$', re.MULTILINE)


def write_headers(folder: str, request: dict[str, Any]) -> list[str]:
    """Write the headers that bcc includes and set its environment; returns the compiler's flags."""
    sources, headers = request["sources"], request["headers"]
    arch = "arm64" if platform.machine() == "aarch64" else "x86"
    flags = [f"-I{sources}", f"-I{folder}", "-DOOMTRACE_BCC", f"-D__TARGET_ARCH_{arch}", "-Wno-unused-function"]
    flags += [f"-DMAP_FD_{name}={descriptor}" for name, descriptor in request["maps"].items()]
    flags += [f"-DSETTING_{name}={value}ULL" for name, value in request["settings"].items()]
    if headers is None:
        with open(f"{sources}/kernel.h", encoding="utf-8") as file:
            types = btf_offsets.types_from_btf(file.read(), btf_offsets.Btf())
        for name, text in _STUB_HEADERS.items():
            os.makedirs(os.path.dirname(f"{folder}/include/{name}"), exist_ok=True)
            write_file(f"{folder}/include/{name}", text)
        os.environ["BCC_KERNEL_SOURCE"] = folder
    else:  # bcc finds them itself; with a path it would miss the part that Debian has in a second directory
        types = btf_offsets.types_from_headers(headers)
        flags.append("-DOOMTRACE_HEADERS")
    write_file(f"{folder}/kernel_bcc.h", types)
    return flags


def inline_hooks(folder: str) -> str:
    """The text of oomtrace.bpf.c with the hooks inlined: bcc cannot load functions from included files."""
    with open(f"{folder}/oomtrace.bpf.c", encoding="utf-8") as file:
        text = file.read()
    for name in _HOOK_INCLUDE.findall(text):
        with open(f"{folder}/{name}", encoding="utf-8") as file:
            text = text.replace(f'#include "{name}"\n', file.read(), 1)
    return text


def write_file(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def main() -> None:
    parent = socket.socket(fileno=int(sys.argv[1]))
    request = json.loads(parent.recv(1 << 16))
    reply: dict[str, Any] = {"loaded": [], "error": None, "errno": 0}
    with tempfile.TemporaryDirectory(prefix="oomtrace-") as folder:
        flags = write_headers(folder, request)
        try:
            from bcc import BPF  # reads the environment at import
        except ImportError:  # PyPI's package "bcc" is another one, without BPF
            sys.exit(NO_BCC)
        programs = BPF(text=inline_hooks(request["sources"]), cflags=flags)
    descriptors: list[int] = []
    for name, is_raw_tracepoint, required in request["programs"]:
        try:
            kind = BPF.RAW_TRACEPOINT if is_raw_tracepoint else BPF.KPROBE
            descriptors.append(programs.load_func(name.encode(), kind).fd)
        except Exception as error:  # bcc raises plain Exception
            if required:
                reply["error"] = f"{name}: {error}"
                reply["errno"] = getattr(error, "errno", None) or ctypes.get_errno() or 22
                break
        else:
            reply["loaded"].append(name)
    socket.send_fds(parent, [json.dumps(reply).encode()], descriptors)
    os._exit(0)  # skips bcc's cleanup, which takes time


if __name__ == "__main__":
    main()
