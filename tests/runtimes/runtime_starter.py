# SPDX-License-Identifier: Apache-2.0
"""Starts each runtime once, on demand, and stops them in reverse order."""

import shutil
from collections.abc import Mapping

from tests.harness.environment import require

from .runtime import Runtime


class RuntimeStarter:
    """The started runtimes."""

    def __init__(self, runtimes: Mapping[str, Runtime]) -> None:
        self._runtimes = runtimes
        self._started: list[str] = []

    def start(self, name: str) -> Runtime:
        """The runtime, started unless it runs."""
        runtime = self._runtimes[name]
        missing = [program for program in runtime.programs if shutil.which(program) is None]
        require(not missing, f"{name}: {', '.join(missing)}")
        if name not in self._started:
            self._started.append(name)
            runtime.start()
        return runtime

    def stop(self) -> None:
        for name in reversed(self._started):
            self._runtimes[name].stop()
