# SPDX-License-Identifier: Apache-2.0
"""The targets of ``make fuzz``, each with its seeds and some hundred fixed variations of them."""

from random import Random

import pytest

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_target(target: Target) -> None:
    """The invariants hold for valid input and variations of it."""
    random = Random(target.name)
    seeds = list(target.seeds())
    assert seeds
    for data in seeds:
        target.run(data)
    for _ in range(target.changes):
        data = random.choice(seeds)
        for _ in range(random.choice((1, 1, 2, 5))):
            data = target.mutate(data, random)
        try:
            target.run(data)
        except BaseException as error:
            error.add_note(f"{target.name}: {data!r}")
            raise
