# SPDX-License-Identifier: Apache-2.0
"""A daemon started after the containers names them, too."""

import pytest

from tests.harness.daemon import SharedDaemon

from .conftest import Start
from .runtime import Container, Runtime
from .victims import Victims, check_names


@pytest.fixture
def container(shared_daemon: SharedDaemon, start: Start) -> Container:
    """A container started before the daemon."""
    shared_daemon.stop()
    return start()


def test_started_later(runtime: Runtime, container: Container, victims: Victims) -> None:
    """A container older than the daemon is named, although its files are removed with it."""
    description = runtime.describe(container)
    container.eat_in_init()
    (record,) = victims.of(container)
    check_names(container, description, runtime, record)
