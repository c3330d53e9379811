# SPDX-License-Identifier: Apache-2.0
"""Processes that the OOM killer only marks, because they already die of another SIGKILL."""

import contextlib
import ctypes
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.dying import stopped_in_exit
from tests.harness.environment import wait_until
from tests.harness.oracles import marked_victims, vmstat_oom_kills
from tracer.capture import attach
from tracer.capture.programs import Hook, Link
from tracer.linux import libbpf

from .conftest import Eat, MakeDaemon

BPF_PROG_TYPE_KPROBE = 2
GET_CURRENT_PID_TGID, SEND_SIGNAL = 14, 109
KPROBE_PMU = Path("/sys/bus/event_source/devices/kprobe")

USES_ALL_ITS_CPU_TIME = """
import resource, sys, time
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write("0")
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("1000")
held = b"x" * (32 << 20)
print(flush=True)
sys.stdin.readline()
seconds = int(time.process_time()) + 1
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
while True:
    pass
"""

pytestmark = pytest.mark.vm


@contextlib.contextmanager
def hidden(path: Path, tmp_path: Path) -> Iterator[None]:
    """Mount an empty directory over a path."""
    subprocess.run(["mount", "--bind", tmp_path, path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


def sigkill_in(function: str, pid: int) -> Link:
    """Attach a BPF program that sends SIGKILL to this process when it calls a kernel function."""

    def instruction(code: int, registers: int, offset: int, value: int) -> bytes:
        return struct.pack("=BBhi", code, registers, offset, value)

    program = b"".join(
        (
            instruction(0x85, 0, 0, GET_CURRENT_PID_TGID),
            instruction(0x77, 0, 0, 32),  # r0 >>= 32
            instruction(0x55, 0, 2, pid),  # if r0 != pid: skip two instructions
            instruction(0xB7, 1, 0, 9),  # r1 = SIGKILL
            instruction(0x85, 0, 0, SEND_SIGNAL),
            instruction(0xB7, 0, 0, 0),  # r0 = 0
            instruction(0x95, 0, 0, 0),
        )
    )
    load = libbpf.library()["bpf_prog_load"]
    count = ctypes.c_size_t(len(program) // 8)
    descriptor = load(BPF_PROG_TYPE_KPROBE, b"kill", b"GPL", program, count, None)
    if descriptor < 0:
        raise libbpf.last_error()
    return attach._attach_program(descriptor, Hook("kill", "kprobe", function))


@pytest.mark.parametrize("function", ["out_of_memory", "task_will_free_mem"])
@pytest.mark.parametrize("kprobes", [True, False], ids=["kprobes", "tracepoints"])
def test_killed_by_a_program(
    make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat, tmp_path: Path, kprobes: bool, function: str
) -> None:
    """It has a sigkill record, from the kernel, and no oom_kill record; the kernel counts no OOM kill."""
    eater = eat(16, cgroup.child("limit", 8), gate=True)
    pid, _tid = eater.start()
    link = sigkill_in(function, pid)
    daemon = make_daemon(arguments=["--sigkill", "all"])
    with contextlib.nullcontext() if kprobes else hidden(KPROBE_PMU, tmp_path):
        assert daemon.wait_ready()["source"] == ("bpf" if kprobes else "bpf_tracepoints")
    before = vmstat_oom_kills()
    eater.go()
    eater.die()
    os.close(link.descriptor)
    fence = eat(16, cgroup.child("fence", 8)).die()
    wait_until("a later kill", lambda: fence.pid in [each["victim"]["pid"] for each in daemon.of_type("oom_kill")])
    wait_until("its record", lambda: pid in [each["victim"]["pid"] for each in daemon.of_type("sigkill")])
    daemon.stop()
    assert vmstat_oom_kills() - before == 1
    assert [each["victim"]["pid"] for each in daemon.of_type("oom_kill")] == [fence.pid]
    (record,) = [each for each in daemon.of_type("sigkill") if each["victim"]["pid"] == pid]
    assert (record["sender"], record["from_kernel"]) == (None, True)


@pytest.mark.parametrize("kprobes", [True, False], ids=["kprobes", "tracepoints"])
def test_killed_by_its_limit_of_cpu_time(
    make_daemon: MakeDaemon, cgroup: Cgroup, eat: Eat, tmp_path: Path, kprobes: bool
) -> None:
    """Killed for RLIMIT_CPU, and chosen by the OOM killer while it dies: it is only marked, so no oom_kill record."""
    group = cgroup.child("group", 64)
    daemon = make_daemon(arguments=["--sigkill", "all"])
    with contextlib.nullcontext() if kprobes else hidden(KPROBE_PMU, tmp_path):
        assert daemon.wait_ready()["source"] == ("bpf" if kprobes else "bpf_tracepoints")
    before = vmstat_oom_kills()
    with (
        marked_victims() as marked,
        subprocess.Popen(
            [sys.executable, "-c", USES_ALL_ITS_CPU_TIME, group.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as limited,
    ):
        pid = limited.pid
        assert limited.stdin is not None
        assert limited.stdout is not None
        limited.stdout.readline()
        with stopped_in_exit(pid):
            limited.stdin.write(b"\n")
            limited.stdin.flush()
            wait_until("it stops on its exit", lambda: " (tracing stop)" in Path(f"/proc/{pid}/status").read_text())
            eat(48, group, hold=True).full()
            assert marked.tids() == [pid]
        assert limited.wait() == -signal.SIGKILL
    fence = eat(16, cgroup.child("fence", 8)).die()
    wait_until("a later kill", lambda: fence.pid in [each["victim"]["pid"] for each in daemon.of_type("oom_kill")])
    wait_until("its record", lambda: pid in [each["victim"]["pid"] for each in daemon.of_type("sigkill")])
    stop = daemon.stop()
    assert vmstat_oom_kills() - before == 1
    assert [each["victim"]["pid"] for each in daemon.of_type("oom_kill")] == [fence.pid]
    (record,) = [each for each in daemon.of_type("sigkill") if each["victim"]["pid"] == pid]
    assert (record["sender"], record["from_kernel"]) == (None, True)
    assert [daemon.of_type("gap"), stop["lost"]] == [[], 0]
