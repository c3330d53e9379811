# SPDX-License-Identifier: Apache-2.0
"""Verifier statistics: no program comes near the kernel's limits, or grows unnoticed."""

import json
from collections.abc import Callable

import pytest

from tests.harness import verifier
from tests.harness.environment import HAS_BTF, not_applicable

Measured = dict[str, dict[str, verifier.Statistics]]


@pytest.fixture(scope="module")
def measured() -> Measured:
    """Mode -> program -> statistics of the verifier."""
    if not HAS_BTF:
        not_applicable("without BTF bcc compiles the programs for the running kernel")
    return {mode: verifier.measure(kprobes) for mode, kprobes in verifier.MODES.items()}


def test_limits(measured: Measured, record_testsuite_property: Callable[[str, object], None]) -> None:
    """Every program stays below three quarters of the kernel's limits."""
    record_testsuite_property("verifier", json.dumps([verifier.kernel(), verifier.entry(measured)]))
    for mode, programs in measured.items():
        assert verifier.excessive(programs) == [], mode


@pytest.mark.parametrize("mode", verifier.MODES)
def test_growth(measured: Measured, mode: str) -> None:
    """No program exceeds the record for this kernel by a tenth; after an intended change: make verifier."""
    record = verifier.load()
    if verifier.kernel() not in record:
        not_applicable(f"no record for {verifier.kernel()} and clang {verifier.clang()}: make verifier")
    recorded = record[verifier.kernel()]
    assert verifier.grown(measured[mode], recorded[mode]) == [], f"recorded on {recorded['release']}"
