# SPDX-License-Identifier: Apache-2.0
"""memory.oom.group, as the kubelet sets it: the whole container dies, and each record names it."""

from tests.harness.cgroups import Hierarchy
from tests.harness.environment import not_applicable

from .conftest import Start
from .runtime import Runtime
from .victims import Victims, check_told


def test_all_die(runtime: Runtime, start: Start, victims: Victims, hierarchy: Hierarchy) -> None:
    """PID 1 dies of its child's hunger; both are named, and both are one incident's."""
    if hierarchy.version == 1:
        not_applicable("cgroup v1 has no memory.oom.group")
    container = start()
    told = runtime.told(container)
    container.group_kill(hierarchy)
    container.eat_in_child()
    records = victims.of(container, 2)
    for record in records:
        check_told(container, told, runtime, record)
        assert record["incident"]["group_kill"] is True
    assert len({record["incident"]["id"] for record in records}) == 1
    assert container.pid in [record["victim"]["pid"] for record in records]
    assert [victims.exit_of(record)["container_init_died"] for record in records] == [True, True]
