# SPDX-License-Identifier: Apache-2.0
"""All targets.  A new one: a Target in a module beside this one, and its place in this table."""

from .commands import COMMANDS
from .kept import KEPT
from .metadata import METADATA
from .stream import STREAM
from .target import Target
from .texts import TEXTS

TARGETS: dict[str, Target] = {target.name: target for target in (STREAM, *TEXTS, *METADATA, *KEPT, *COMMANDS)}
