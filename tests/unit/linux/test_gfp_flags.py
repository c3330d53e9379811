# SPDX-License-Identifier: Apache-2.0
"""gfp_flags.py: tables of real kernels, and masks as their logs spell them.

gfp/VERSION.txt is the `print fmt` line of events/kmem/mm_page_alloc/format: Debian's cloud kernels, and a 6.18.
"""

import contextlib
import functools
import itertools
import operator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness import DATA
from tracer.linux.gfp_flags import GfpNames, parse_table

TABLES = {path.stem: path for path in sorted((DATA / "gfp").glob("*.txt"))}


def names(tmp_path: Path, text: str) -> GfpNames:
    """GfpNames for a kernel with ``text`` as its format file."""
    folder = tmp_path / "events" / "kmem" / "mm_page_alloc"
    folder.mkdir(parents=True)
    (folder / "format").write_text(text)
    return GfpNames(str(tmp_path))


# From the kernels' logs: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO).
@pytest.mark.parametrize(
    ("version", "mask", "spelled"),
    [
        *[(version, 0xCC0, "GFP_KERNEL") for version in TABLES],
        *[(version, 0xDC0, "GFP_KERNEL|__GFP_ZERO") for version in TABLES],
        *[(version, 0x100DCA, "GFP_HIGHUSER_MOVABLE|__GFP_ZERO") for version in TABLES],
        *[(version, 0x140CCA, "GFP_HIGHUSER_MOVABLE|__GFP_COMP") for version in TABLES],
        ("6.1", 0x140DCA, "GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO"),
        ("6.12", 0x140DCA, "GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO"),
        ("7.3", 0x140DCA, "GFP_HIGHUSER_MOVABLE|__GFP_ZERO|__GFP_COMP"),
        ("6.12", 0x2800, "GFP_NOWAIT"),
        ("5.10", 0x2800, "GFP_NOWAIT|__GFP_NOWARN"),
    ],
)
def test_spell(version: str, mask: int, spelled: str, tmp_path: Path) -> None:
    """A mask is spelled as the log of the same kernel spells it."""
    assert spelled == names(tmp_path, TABLES[version].read_text()).spell(mask)


@pytest.mark.parametrize("version", TABLES)
def test_table(version: str) -> None:
    """Every entry of a real table is parsed, and is one bit or a combination of others."""
    text = TABLES[version].read_text()
    table = parse_table(text)
    assert text.count("_GFP_") + text.count('"GFP_') == len(table)
    single = functools.reduce(operator.or_, (bits for bits, _ in table if bits.bit_count() == 1))
    for bits, name in table:
        assert bits & single == bits, name


@pytest.mark.parametrize("version", TABLES)
def test_larger_names_first(version: str) -> None:
    """The kernel's order is kept: a combined name comes before its parts."""
    table = [bits for bits, name in parse_table(TABLES[version].read_text()) if not name.startswith("__")]
    assert all(later & earlier != earlier or later == earlier for earlier, later in itertools.pairwise(table))


def test_bits_without_a_name(tmp_path: Path) -> None:
    """Bits that are not in the table follow as a number."""
    assert names(tmp_path, TABLES["6.1"].read_text()).spell(0x80000CC0) == "GFP_KERNEL|0x80000000"


def test_empty_mask(tmp_path: Path) -> None:
    """A mask without flags is 0."""
    assert names(tmp_path, TABLES["6.1"].read_text()).spell(0) == "0"


@pytest.mark.parametrize("text", ["", "print fmt: nothing", '{(unsigned long)(1 + 1), "GFP_ODD"}', '{((1, "GFP_ODD"}'])
def test_no_table(text: str, tmp_path: Path) -> None:
    """If the table has unknown syntax, a mask has no names."""
    assert names(tmp_path, text).spell(0xCC0) is None


def test_no_tracefs(tmp_path: Path) -> None:
    """If tracefs is not mounted or not readable, a mask has no names."""
    assert GfpNames(None).spell(0xCC0) is None
    assert GfpNames(str(tmp_path)).spell(0xCC0) is None


@pytest.mark.parametrize(
    ("expression", "bits"),
    [
        ("0x400u|0x800u", 0xC00),
        ("( gfp_t)((((1UL))) << (10))", 1 << 10),
        ("((1UL) << 3) | (( gfp_t)0)", 8),
        ("(7 & ~(1|2))", 4),
        ("~0", 0xFFFFFFFF),
        ("( unsigned long)(( __u32)0x10u)", 16),
    ],
)
def test_expression(expression: str, bits: int) -> None:
    """The operators in kernels' tables are evaluated."""
    assert [(bits, "__GFP_X")] == parse_table(f'{{{expression}, "__GFP_X"}}')


@given(st.lists(st.sampled_from(["(", ")", "|", "&", "~", "<<", "1", "0x8u", " ", "gfp_t", "-", "1UL"])).map("".join))
def test_any_expression(expression: str) -> None:
    """Any text raises ValueError at most."""
    with contextlib.suppress(ValueError):
        parse_table(f'{{{expression}, "__GFP_X"}}')


@pytest.mark.parametrize("expression", ["(" * 5000, "~" * 5000, "1 << 99999999999", "1 <<", "1 << ~0"])
def test_endless_expression(expression: str) -> None:
    """Expressions that would exhaust memory or the stack are rejected."""
    with pytest.raises(ValueError, match=r"shift by|negative|unexpected|invalid"):
        parse_table(f'{{{expression}, "GFP_X"}}')
