# SPDX-License-Identifier: Apache-2.0
"""memory.oom.group, as set by the kubelet: the whole container is killed, and each record names it."""

from tests.harness.cgroups import Hierarchy
from tests.harness.environment import not_applicable

from .conftest import Start
from .runtime import Runtime
from .victims import Victims, check_names


def test_all_die(runtime: Runtime, start: Start, victims: Victims, hierarchy: Hierarchy) -> None:
    """PID 1 is killed with its child; both records name the container and have one incident."""
    if hierarchy.version == 1:
        not_applicable("cgroup v1 has no memory.oom.group")
    container = start()
    description = runtime.describe(container)
    container.group_kill(hierarchy)
    container.eat_in_child()
    records = victims.of(container, 2)
    for record in records:
        check_names(container, description, runtime, record)
        assert record["incident"]["group_kill"] is True
    assert len({record["incident"]["id"] for record in records}) == 1
    assert container.pid in [record["victim"]["pid"] for record in records]
    assert [victims.exit_of(record)["container_init_died"] for record in records] == [True, True]
