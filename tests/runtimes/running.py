# SPDX-License-Identifier: Apache-2.0
"""Starts runtimes: each once, when it is asked for; the last one is stopped first."""

import shutil
from collections.abc import Mapping

from tests.harness.environment import require

from .runtime import Runtime


class Running:
    """The runtimes that were started."""

    def __init__(self, runtimes: Mapping[str, Runtime]) -> None:
        self._runtimes = runtimes
        self._started: list[str] = []

    def start(self, name: str) -> Runtime:
        """The runtime, started when it is not."""
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
