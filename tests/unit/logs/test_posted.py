# SPDX-License-Identifier: Apache-2.0
"""Parts of kernel logs that people have posted: each kill has its own container and limit, and none is invented."""

from typing import Any

import pytest

from tests.harness import DATA
from tracer.logs.kills import KillSearch

FOLDER = DATA / "kernel_logs/posted"
MIB = 1 << 20

A, B = "a" * 64, "b" * 64
POD = "/kubepods.slice/kubepods-podf9411888_a753_41f4_9520_afc45712f5b5.slice"
OF_POD = "85d3a7f5db9b92df4f5930b5bf062cff540084aacfc05310acc6c5cc963023ad"
JAVA = "812c82c5a7a5ae054e6f242215bdc4415a2d9b690768962a7bcd8d4676b16f60"

Kill = tuple[int, str, str | None, str | None, int | None]
"""Thread, comm, container, the limit's cgroup, and the limit."""
TWO: list[Kill] = [(111, "python3", A, f"/docker/{A}", None), (222, "python3", B, f"/docker/{B}", None)]
MEMBERS = {3803554: "sleep", 3803846: "bash"}
TABLE: dict[str, tuple[str, list[Kill]]] = {
    "two-containers": ("memcg", TWO),
    "two-containers-a-day-apart": ("memcg", TWO),
    "two-containers-lines-missed": ("memcg", TWO),
    "two-containers-before-5.0": (
        "memcg",
        [(111, "celery", A, f"/docker/{A}", 1024 * MIB), (222, "nginx", B, f"/docker/{B}", 2 * MIB)],
    ),
    "thread-chosen": ("memcg", [(76513, "java", JAVA, f"/docker/{JAVA}", 4096 * MIB)]),
    "sysrq": ("sysrq", [(651, "unattended-upgr", None, None, None)]),
    "pod-group": (
        "memcg",
        [
            (tid, MEMBERS.get(tid, "stress"), OF_POD, POD, None)
            for tid in (
                3804874, 3803554, 3803846, 3804873, 3804875, 3804876, 3804879, 3804880, 3804881, 3804883,
            )
        ],
    ),
}  # fmt: skip
UNFINISHED = {"talos-unfinished": "java", "padded-unfinished": "cp"}


def read(name: str) -> tuple[list[Any], list[str]]:
    search = KillSearch()
    return list(search.kills([str(FOLDER / f"{name}.txt")])), [remark.text for remark in search.remarks()]


def test_table() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == TABLE.keys() | UNFINISHED.keys()


@pytest.mark.parametrize("name", TABLE)
def test_kills(name: str) -> None:
    scope, expected = TABLE[name]
    kills, remarks = read(name)
    assert not any("does not say who was killed" in remark for remark in remarks)
    assert [
        (
            kill["victim"]["tid"],
            kill["victim"]["comm"],
            (kill["container"] or {}).get("id"),
            (kill["limit"] or {}).get("cgroup"),
            (kill["limit"] or {}).get("limit_bytes"),
        )
        for kill in kills
    ] == expected
    assert {kill["incident"]["scope"] for kill in kills} == {scope}
    groups = {kill["incident"]["id"] for kill in kills}
    assert len(groups) == (1 if name == "pod-group" else len(kills))


@pytest.mark.parametrize("name", UNFINISHED)
def test_unfinished(name: str) -> None:
    """A report that ends before its kill makes no record, but a remark that names the trigger."""
    kills, remarks = read(name)
    assert kills == []
    assert any(f"does not say who was killed ({UNFINISHED[name]} invoked" in remark for remark in remarks)


def test_request() -> None:
    """A kill by SysRq-f has a kernel worker as its trigger, and all RAM as its limit."""
    ((kill,), _) = read("sysrq")
    assert kill["incident"]["total_pages"] == 524158 - 17809
    assert (kill["trigger"]["comm"], kill["incident"]["order"]) == ("kworker/0:2", -1)
