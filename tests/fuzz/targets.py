# SPDX-License-Identifier: Apache-2.0
"""The table of all targets; a new one is a Target in a module of this package, listed here."""

from .commands import COMMANDS
from .kept import KEPT
from .metadata import METADATA
from .stream import STREAM
from .target import Target
from .texts import TEXTS

TARGETS: dict[str, Target] = {target.name: target for target in (STREAM, *TEXTS, *METADATA, *KEPT, *COMMANDS)}
