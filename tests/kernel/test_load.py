# SPDX-License-Identifier: Apache-2.0
"""The verifier accepts the programs, also for kernels built without types that they read."""

import ctypes
import os
from pathlib import Path

import pytest

from tests.harness.environment import HAS_BTF, not_applicable
from tracer.capture import engine_core
from tracer.capture.programs import Settings
from tracer.linux import libbpf

BTF = Path("/sys/kernel/btf/vmlinux")
BPF_PROG_TYPE_KPROBE = 2


class OpenOptions(ctypes.Structure):
    """``struct bpf_object_open_opts``."""

    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
        ("attach_prog_fd", ctypes.c_uint32),
        ("kconfig", ctypes.c_char_p),
        ("btf_custom_path", ctypes.c_char_p),
    ]


def load(btf: Path, kprobes: bool) -> None:
    """Load all programs with this BTF.

    Raises OSError when the verifier rejects a program.
    """
    library = libbpf.library()
    options = OpenOptions(sz=ctypes.sizeof(OpenOptions), btf_custom_path=os.fsencode(btf))
    opened = library.bpf_object__open_file(engine_core.object_path().encode(), ctypes.addressof(options))
    assert opened
    try:
        settings = Settings(cpus=2, kprobes=int(kprobes), stats_index=0, stats_index_size=0, sigkill=2)
        engine_core._configure_object(opened, settings, 4096)
        if library.bpf_object__load(opened):
            raise libbpf.last_error()
    finally:
        library.bpf_object__close(opened)


@pytest.mark.parametrize("kprobes", [True, False], ids=["kprobes", "tracepoints"])
@pytest.mark.parametrize(
    "lacks",
    [
        pytest.param([], id="whole"),
        pytest.param([b"mem_cgroup", b"memory_cgrp_id", b"memcg_vmstats", b"memcg_stat_item"], id="no memcg"),
        pytest.param([b"qspinlock"], id="one CPU"),
        pytest.param([b"trace_event_raw_sched_process_exit"], id="before 6.16"),
    ],
)
def test_types(lacks: list[bytes], kprobes: bool, tmp_path: Path) -> None:
    """The programs load although types are missing."""
    if not HAS_BTF:
        not_applicable("without BTF bcc compiles the programs for the running kernel")
    types = BTF.read_bytes()
    for name in lacks:
        types = types.replace(b"\0" + name + b"\0", b"\0" + b"x" * len(name) + b"\0")
    (tmp_path / "btf").write_bytes(types)
    load(tmp_path / "btf", kprobes)
