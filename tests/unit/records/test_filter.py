# SPDX-License-Identifier: Apache-2.0
"""filter.py: the kills that --only and --except select."""

from typing import Any

import pytest

from tests.harness.events import incident, victim
from tests.harness.records import complete
from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.pipeline.incidents import JoinedKill
from tracer.records.filter import EXCLUDED_IDS_MAX, FIELDS, ExcludedIds, Filter
from tracer.records.model import OomKill


def record(**parts: dict[str, Any]) -> OomKill:
    """A kill with the given fields."""
    made: Any = complete(JoinedKill(victim(), incident(), 1, (), (), ()))
    for part, fields in parts.items():
        made[part] = {**(made[part] or {}), **fields}
    checked: OomKill = made
    return checked


SHOP = record(kubernetes={"namespace": "shop", "pod_name": "cart-7f"}, container={"name": "cart", "id": "5aaf9eb7648e"})


def passes(only: list[str], unwanted: list[str], of: OomKill = SHOP) -> bool:
    split = [
        [(name, pattern) for name, _, pattern in (text.partition("=") for text in each)] for each in (only, unwanted)
    ]
    return Filter(*split).matches(of)


@pytest.mark.parametrize(
    ("only", "unwanted", "expected"),
    [
        ([], [], True),
        (["namespace=shop"], [], True),
        (["namespace=sho"], [], False),
        (["namespace=sh*"], [], True),
        (["namespace=bank", "namespace=shop"], [], True),
        (["namespace=shop", "pod=pay-*"], [], False),
        (["namespace=shop", "pod=cart-*"], [], True),
        (["container=5aaf*"], [], True),
        (["container=cart"], [], True),
        (["image=*"], [], False),
        ([], ["image=*"], True),
        ([], ["namespace=shop"], False),
        (["namespace=shop"], ["pod=cart-7?"], False),
        ([], ["scope=host", "scope=sysrq"], True),
    ],
)
def test_passes(only: list[str], unwanted: list[str], expected: bool) -> None:
    """Every name of `include` must match with one pattern, none of `exclude`; null matches nothing."""
    assert passes(only, unwanted) is expected


def test_newline_is_no_end() -> None:
    """A name with text after a newline does not match."""
    hostile = record(kubernetes={"namespace": "shop\nbank"})
    assert not passes(["namespace=shop"], [], hostile)
    assert passes(["namespace=shop*bank"], [], hostile)


@pytest.mark.parametrize("name", FIELDS)
def test_fields(name: str) -> None:
    """Each field is in the record."""
    part, _, field = FIELDS[name][0].partition(".")
    assert passes([f"{name}=x-1"], [], record(**{part: {field: "x-1"}}))


def test_unknown_field() -> None:
    """An unknown field is a usage error."""
    with pytest.raises(TracerError, match="use one of cgroup, comm") as caught:
        Filter([("namspace", "x")], [])
    assert caught.value.exit_code == EXIT_USAGE


def test_exits_of_many_filtered_kills() -> None:
    """The last EXCLUDED_IDS_MAX ids are kept."""
    excluded = ExcludedIds()
    for number in range(2 * EXCLUDED_IDS_MAX):
        excluded.add(str(number))
    assert [str(number) in excluded for number in (0, EXCLUDED_IDS_MAX - 1, EXCLUDED_IDS_MAX)] == [False, False, True]
    assert len(excluded._ids) == EXCLUDED_IDS_MAX
