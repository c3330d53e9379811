# SPDX-License-Identifier: Apache-2.0
"""threads.py: a thread that cannot be started is logged once and counted; the program continues."""

import subprocess
import sys

PROGRAM = """
import resource, sys, threading, time
from tracer.base import threads
from tracer.base.hung_disk import DiskWorker, call_with_timeout

def limit(bytes_max):
    resource.setrlimit(resource.RLIMIT_AS, (bytes_max, resource.RLIM_INFINITY))

disk, done = DiskWorker(), []
threading.stack_size(256 << 20)
with open("/proc/self/statm") as file:
    limit(int(file.read().split()[0]) * resource.getpagesize() + (64 << 20))
for _ in range(3):
    assert threads.start("names", print) is None
disk.submit(lambda: None)
assert not disk.wait_idle(5) and not done
try:
    call_with_timeout(5, print)
except TimeoutError as error:
    print(error.strerror)
print(threads.start_failures)
limit(resource.RLIM_INFINITY)
disk.submit(lambda: done.append(1))
assert disk.wait_idle(5) and done == [1]
"""


def test_no_thread() -> None:
    """With a limit on memory no thread starts; a job of the disk worker is done once its thread can start."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[:2] == ["cannot start a thread", "5"]
    assert run.stderr.count("cannot start a thread for names") == 1
    assert run.stderr.count("can be started again") == 1
