# SPDX-License-Identifier: Apache-2.0
"""Records of kills in containers have the runtime's names of the container."""

from tracer.identity.runtimes import Runtimes
from tracer.records.unix_time import unix_seconds
from tracer.why.timestamps import to_rfc3339

from .conftest import Start
from .runtime import EAT, EATER, Runtime
from .victims import Victims, check_names, check_verdict

TICK_S = 0.01
"""podman uses the time of conmon's exit file, and the kernel stamps files with the time of its last tick
(current_time() in fs/inode.c): up to 10 ms (CONFIG_HZ=100) before the time in the record.
"""


def test_init(runtime: Runtime, start: Start, victims: Victims) -> None:
    """The container's PID 1 is killed, which ends the container."""
    container = start()
    description = runtime.describe(container)
    container.eat_in_init()
    (record,) = victims.of(container)
    check_names(container, description, runtime, record)
    victim = record["victim"]
    assert (container.pid, 1, True, EATER) == (
        victim["pid"],
        victim["namespace_pid"],
        victim["is_container_init"],
        victim["comm"],
    )
    gone = victims.exit_of(record)
    assert gone["pid"] == container.pid
    assert gone["container_init_died"] is True


def test_child(runtime: Runtime, start: Start, victims: Victims) -> None:
    """A child of PID 1 is killed: the container runs on, and its runtime may have no verdict."""
    container = start()
    description = runtime.describe(container)
    container.eat_in_child()
    (record,) = victims.of(container)
    check_names(container, description, runtime, record)
    victim = record["victim"]
    assert victim["is_container_init"] is False
    assert victim["namespace_pid"] > 1
    assert [{"pid": container.pid, "comm": "sh"}] == victim["ancestors"]
    gone = victims.exit_of(record)
    assert gone["pid"] == victim["pid"]
    assert gone["container_init_died"] is False
    check_verdict(runtime.verdict(container), gone, required=False)
    assert container.lives()


def test_exec(runtime: Runtime, start: Start, victims: Victims) -> None:
    """A process of the runtime's exec is killed: not a child of PID 1, but in the container."""
    container = start()
    description = runtime.describe(container)
    runtime.execute(container, EAT)
    # On a busy host runc may be killed as well: its memory is charged to the container.
    (record,) = [record for record in victims.of(container) if record["victim"]["comm"] == EATER]
    check_names(container, description, runtime, record)
    victim = record["victim"]
    assert victim["is_container_init"] is False
    assert victim["namespace_pid"] > 1
    assert victims.exit_of(record)["container_init_died"] is False
    assert container.lives()


def test_verdict(runtime: Runtime, start: Start, victims: Victims) -> None:
    """The exit record has the runtime's verdict, if its files have it."""
    container = start()
    container.eat_in_init()
    (record,) = victims.of(container)
    gone = victims.exit_of(record)
    check_verdict(runtime.verdict(container), gone, required=runtime.keeps_verdicts)
    if gone["runtime_verdict"] is not None:
        roots = [(name, str(path)) for name, path in runtime.roots().items()]
        ended = Runtimes(roots).fetch_state(container.id, runtime.kind)
        assert ended is not None
        late_s = (unix_seconds(to_rfc3339(ended["finished_at"])) or 0) - (unix_seconds(record["time"]) or 0)
        assert -TICK_S <= late_s < 60, ended


def test_two_containers(runtime: Runtime, start: Start, victims: Victims) -> None:
    """Two containers of one image that run out of memory at once are not mixed up."""
    containers = [start(), start()]
    descriptions = [runtime.describe(container) for container in containers]
    for container in containers:
        container.eat_in_child()
    for container, answer in zip(containers, descriptions, strict=True):
        (record,) = victims.of(container)
        check_names(container, answer, runtime, record)
