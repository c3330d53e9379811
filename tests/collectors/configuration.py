# SPDX-License-Identifier: Apache-2.0
"""The configurations of deploy/collectors, with a test's own paths and ports in them."""

from collections.abc import Mapping
from pathlib import Path

from tests.harness.environment import ROOT

CONFIGURATIONS = ROOT / "deploy" / "collectors"


def adapted(name: str, places: Mapping[str, object], folder: Path) -> Path:
    """The file ``deploy/collectors/NAME`` in ``folder``; ``places`` are texts in it and what stands there now."""
    text = (CONFIGURATIONS / name).read_text()
    for place, here in places.items():
        assert place in text, f"{name} has no {place!r}"
        text = text.replace(place, str(here))
    made = folder / Path(name).name
    made.write_text(text)
    return made
