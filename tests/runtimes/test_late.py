# SPDX-License-Identifier: Apache-2.0
"""A tracer that is started after the containers knows them, too."""

import pytest

from tests.harness.daemon import SharedDaemon

from .conftest import Start
from .runtime import Container, Runtime
from .victims import Victims, check_told


@pytest.fixture
def container(shared_daemon: SharedDaemon, start: Start) -> Container:
    """A container that runs before the tracer does."""
    shared_daemon.stop()
    return start()


def test_started_later(runtime: Runtime, container: Container, victims: Victims) -> None:
    """What the tracer has not seen beginning has its names all the same, although its files go with it."""
    told = runtime.told(container)
    container.eat_in_init()
    (record,) = victims.of(container)
    check_told(container, told, runtime, record)
