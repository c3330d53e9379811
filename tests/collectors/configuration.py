# SPDX-License-Identifier: Apache-2.0
"""The configurations of deploy/collectors, with the paths and ports of a test."""

from collections.abc import Mapping
from pathlib import Path

from tests.harness.environment import ROOT

CONFIGURATIONS = ROOT / "deploy" / "collectors"


def adapted(name: str, places: Mapping[str, object], folder: Path) -> Path:
    """Copy ``deploy/collectors/NAME`` to ``folder``; ``places`` maps texts in it to their replacements."""
    text = (CONFIGURATIONS / name).read_text()
    for place, here in places.items():
        assert place in text, f"{name} has no {place!r}"
        text = text.replace(place, str(here))
    made = folder / Path(name).name
    made.write_text(text)
    return made
