# SPDX-License-Identifier: Apache-2.0
"""The host's RAM and swap from the report in a kernel log: in pages, and only if they are certain."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.harness.kernel_log_files import FILES, TRIMMED
from tracer.logs.kills import KillSearch
from tracer.records.conclusions import page_bytes

HOST = FILES["6.12-global"]
RAM, RESERVED = 65383, 20139


def total_pages(log: bytes, folder: Path) -> int | None:
    file = folder / "log"
    file.write_bytes(log)
    (record,) = KillSearch().kills([str(file)])
    return record["incident"]["total_pages"]


def test_swap_counts(tmp_path: Path) -> None:
    """totalram_pages() and total_swap_pages, as constrained_alloc() adds them."""
    assert total_pages(HOST, tmp_path) == RAM - RESERVED
    swap = HOST.replace(b"Total swap = 0kB", b"Total swap = 4096kB")
    assert total_pages(swap, tmp_path) == RAM - RESERVED + 1024


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        (rb"\[[^\n]* pages RAM\n", b""),
        (rb"\[[^\n]* pages reserved\n", b""),
        (rb"\[[^\n]* Total swap = 0kB\n", b""),
        (rb"HighMem/MovableOnly", b"HighMem"),
        (rb"\n(\[[^\n]*\] )0 pages hwpoisoned", rb"\n\g<1>4096 pages cma reserved"),
    ],
    ids=["no RAM", "no reserved", "no swap", "before 3.14", "CMA"],
)
def test_unknown(line: bytes, instead: bytes, tmp_path: Path) -> None:
    """The kernel decides what is reserved, and whether that includes CMA's pages."""
    log, count = re.subn(line, instead, HOST)
    assert count == 1
    assert total_pages(log, tmp_path) is None


def test_swap_without_page_size(tmp_path: Path) -> None:
    """Swap is in kB: without the table of tasks its number of pages is unknown."""
    log = re.sub(rb"\n\[ *[\d.]+\] (?:Tasks state|\[ +(?:\d+|pid +)\])[^\n]*", b"", HOST)
    assert total_pages(log, tmp_path) == RAM - RESERVED
    assert total_pages(log.replace(b"Total swap = 0kB", b"Total swap = 4096kB"), tmp_path) is None


@pytest.mark.parametrize("name", ["6.1-cpuset", "6.1-policy", "7.2-oddname"])
def test_constrained(name: str, tmp_path: Path) -> None:
    """If nodes or a limit constrain, the kernel counts something else, which is not in the log."""
    (tmp_path / "log").write_bytes({**FILES, **TRIMMED}[name])
    records = list(KillSearch().kills([str(tmp_path / "log")]))
    assert {record["incident"]["total_pages"] for record in records} == {None}


@pytest.mark.parametrize("page", [4096, 16384, 65536])
def test_page_size(page: int, tmp_path: Path) -> None:
    """All sizes are of whole pages; of few sizes nothing follows but that a page is smaller."""
    (tmp_path / "log").write_bytes(HOST)
    (found,) = KillSearch().kills([str(tmp_path / "log")])
    record: Any = found
    victim = record["victim"]
    for number, name in enumerate(("anon_rss_bytes", "file_rss_bytes", "total_vm_bytes"), 1):
        victim[name] = page * (2 * number + 1)
    victim["shmem_rss_bytes"] = 0
    record["candidates"] = [{**record["candidates"][0], "rss_bytes": page * (2 * number + 11)} for number in range(7)]
    assert page_bytes(record) == page
    record["candidates"] = None
    assert page_bytes(record) == (page if page == 4096 else None)
