# SPDX-License-Identifier: Apache-2.0
"""What the verifier goes through: no program comes near to what a kernel allows, or grows unseen."""

import json
from collections.abc import Callable

import pytest

from tests.harness import verifier
from tests.harness.environment import HAS_BTF, not_applicable

Measured = dict[str, dict[str, verifier.Statistics]]


@pytest.fixture(scope="module")
def measured() -> Measured:
    """By mode: what the verifier says of each program."""
    if not HAS_BTF:
        not_applicable("without BTF bcc compiles the programs for this very kernel")
    return {mode: verifier.measure(kprobes) for mode, kprobes in verifier.MODES.items()}


def test_limits(measured: Measured, record_testsuite_property: Callable[[str, object], None]) -> None:
    """Every program leaves a quarter of what the kernel allows."""
    record_testsuite_property("verifier", json.dumps([verifier.kernel(), verifier.entry(measured)]))
    for mode, programs in measured.items():
        assert verifier.excessive(programs) == [], mode


@pytest.mark.parametrize("mode", verifier.MODES)
def test_growth(measured: Measured, mode: str) -> None:
    """No program needs a tenth more than is recorded for this kernel; where that is meant: make verifier."""
    record = verifier.load()
    if verifier.kernel() not in record:
        not_applicable(f"no record for {verifier.kernel()} and clang {verifier.clang()}: make verifier")
    recorded = record[verifier.kernel()]
    assert verifier.grown(measured[mode], recorded[mode]) == [], f"recorded on {recorded['release']}"
