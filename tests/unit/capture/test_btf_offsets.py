# SPDX-License-Identifier: Apache-2.0
"""btf_offsets.py: types for bcc have the running kernel's offsets, and macros show its features."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness import btf
from tests.harness.compiler import BPF, evaluate
from tests.harness.environment import require
from tracer.capture import kernel_features
from tracer.capture.btf_offsets import Btf, parse_declarations, types_from_btf, types_from_headers

KERNEL_H = (BPF / "kernel.h").read_text()
ASKED = re.compile(r"\b(?:EXISTS|OFFSET|SIZE|ENUM)_\w+")
FIELD = re.compile(r"^\t(?P<type>.*?[ *])(?P<name>\w+)(?P<array>\[\d+\])?;$", re.MULTILINE)


@pytest.fixture(scope="module")
def placed() -> str:
    """The header that bcc includes on the running kernel."""
    require(Path(kernel_features.BTF).exists(), "a kernel with BTF")
    return types_from_btf(KERNEL_H, Btf())


@pytest.fixture(scope="module")
def oracle() -> btf.RawBtf:
    """The running kernel's types, read by an independent reader."""
    require(Path(kernel_features.BTF).exists(), "a kernel with BTF")
    return btf.RawBtf(Path(kernel_features.BTF))


def macros(text: str) -> dict[str, str]:
    return dict(re.findall(r"^#define (\w+) (.+)$", text, re.MULTILINE))


def expected_macros(oracle: btf.RawBtf) -> dict[str, int]:
    """The macros for kernel.h, computed with the independent reader."""
    found: dict[str, int] = {}
    for block in parse_declarations(KERNEL_H):
        if block.keyword == "enum":
            values = oracle.enumerators(block.name)
            for name in re.findall(r"^\t(\w+),$", block.body, re.MULTILINE):
                found[f"EXISTS_ENUM_{name}"] = name in values
                found[f"ENUM_{name}"] = values.get(name, 0)
            continue
        real = block.name.partition("___")[0]
        found[f"SIZE_{block.name}"] = oracle.struct_size(real)
        fields = oracle.fields(real)
        for field in FIELD.finditer(block.body):
            offset, size, kind = fields.get(field["name"], (0, 0, 0))
            pointer, array = field["type"].endswith("*"), field["array"] is not None
            there = kind != 0 and array == (kind == btf.ARRAY) and (pointer and not array) == (kind == btf.PTR)
            key = f"{block.name}_{field['name']}"
            found[f"EXISTS_{key}"] = there
            found[f"OFFSET_{key}"] = offset if there else 0
            found[f"SIZE_{key}"] = size if there else 0
    return found


def test_macros(placed: str, oracle: btf.RawBtf) -> None:
    """Every offset, size and number is that of the running kernel."""
    answered = {name: int(value) for name, value in macros(placed).items() if ASKED.fullmatch(name)}
    assert expected_macros(oracle) == answered


def test_layout(placed: str, oracle: btf.RawBtf, tmp_path: Path) -> None:
    """The compiler places every existing field at its offset in the running kernel."""
    offsets = {}
    for block in parse_declarations(KERNEL_H):
        if block.keyword == "struct":
            for field in FIELD.finditer(block.body):
                key = f"{block.name}_{field['name']}"
                if macros(placed)[f"EXISTS_{key}"] == "1":
                    offset = oracle.fields(block.name.partition("___")[0])[field["name"]][0]
                    offsets[f"offsetof(struct {block.name}, {field['name']})"] = offset
    assert offsets == evaluate(placed, offsets, tmp_path)
    assert len(offsets) > 50


@pytest.mark.parametrize(
    ("struct", "field"),
    [
        ("task_struct", "comm"),
        ("task_struct", "mm"),
        ("mm_struct", "arg_start"),  # in an anonymous struct
        ("signal_struct", "oom_score_adj"),
        ("cred", "uid"),
        ("oom_control", "memcg"),
        ("mem_cgroup", "memory"),
        ("kernfs_node", "name"),
        ("pid", "numbers"),
    ],
)
def test_fields_that_every_kernel_has(placed: str, struct: str, field: str) -> None:
    """Fields that were never renamed are found."""
    assert macros(placed)[f"EXISTS_{struct}_{field}"] == "1"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("kernfs_node_parent", "kernfs_node___parent"),
        ("mm_struct___struct_rss_stat", "mm_struct___array_rss_stat"),
    ],
)
def test_shapes_exclude_each_other(placed: str, one: str, other: str) -> None:
    """A kernel has one of two variants of a struct."""
    assert {"0", "1"} == {macros(placed)[f"EXISTS_{one}"], macros(placed)[f"EXISTS_{other}"]}


def left_over(types: str, folder: Path, *flags: str) -> set[str]:
    """The macros that the programs use with bcc and that ``types`` does not define."""
    require(shutil.which("cc"), "a C compiler")
    (folder / "kernel_bcc.h").write_text(types)
    for name in re.findall(r"#include <(.*)>", (BPF / "engine.h").read_text()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    command = [
        "cc",
        "-E",
        "-P",
        "-nostdinc",
        f"-I{folder}",
        f"-I{BPF}",
        "-DOOMTRACE_BCC",
        *flags,
        f"{BPF}/oomtrace.bpf.c",
    ]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "on_mark_victim" in text
    return set(ASKED.findall(text))


def test_btf_answers_every_question(placed: str, tmp_path: Path) -> None:
    """Every EXISTS, OFFSET, SIZE and ENUM in bpf/ is defined with types from BTF."""
    assert set() == left_over(placed, tmp_path)


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.15"])
def test_headers_answer_every_question(kernel: str, tmp_path: Path) -> None:
    """Every EXISTS, OFFSET, SIZE and ENUM in bpf/ is defined with types from old and new headers."""
    tree = write_tree(tmp_path / "tree", HEADERS[kernel])
    assert set() == left_over(types_from_headers(str(tree)), tmp_path, "-DOOMTRACE_HEADERS")


HEADERS = {
    "5.10": {
        "kernfs.h": "struct kernfs_node {\n\tstruct kernfs_node\t*parent;\n\tconst char *name;\n};\n",
        "mm_types.h": "struct mm_struct {\n\tstruct {\n\t\tstruct mm_rss_stat rss_stat;\n\t};\n};\n",
        "page_counter.h": "struct page_counter {\n\tatomic_long_t usage;\n};\n",
        "memcontrol.h": "enum memcg_stat_item {\n\tMEMCG_SOCK,\n\tMEMCG_NR_STAT,\n};\n"
        "struct mem_cgroup {\n\tatomic_long_t\t\tvmstats[MEMCG_NR_STAT];\n};\n",
    },
    "6.1": {
        "kernfs.h": "struct kernfs_node {\n\tstruct kernfs_node\t*parent;\n\tconst char *name;\n};\n",
        "mm_types.h": "struct mm_struct {\n\tstruct {\n\t\tstruct mm_rss_stat rss_stat;\n\t};\n};\n",
        "page_counter.h": "struct page_counter {\n\tatomic_long_t usage;\n};\n",
        "memcontrol.h": "enum memcg_stat_item {\n\tMEMCG_SOCK,\n\tMEMCG_KMEM,\n\tMEMCG_NR_STAT,\n};\n"
        "struct mem_cgroup {\n\tstruct memcg_vmstats\t*vmstats;\n};\n",
    },
    "6.15": {
        "kernfs.h": "struct kernfs_node {\n\tstruct kernfs_node __rcu\t*__parent;\n\tconst char __rcu *name;\n};\n",
        "mm_types.h": "struct mm_struct {\n\tstruct {\n\t\tstruct percpu_counter rss_stat[NR_MM_COUNTERS];\n\t};\n};\n",
        "page_counter.h": "struct page_counter {\n\tatomic_long_t usage;\n\tbool track_failcnt;\n};\n",
        "memcontrol.h": "enum memcg_stat_item {\n\tMEMCG_SOCK,\n\tMEMCG_KMEM,\n\tMEMCG_NR_STAT,\n};\n"
        "struct mem_cgroup {\n\tstruct memcg_vmstats\t*vmstats;\n};\n",
    },
}
"""Parts of headers that differ between kernels."""

ANSWERS = {
    "EXISTS_kernfs_node___parent": (0, 0, 1),
    "EXISTS_mm_struct___struct_rss_stat": (1, 1, 0),
    "EXISTS_page_counter_track_failcnt": (0, 0, 1),
    "EXISTS_mem_cgroup___array_vmstats": (1, 0, 0),
    "EXISTS_ENUM_MEMCG_KMEM": (0, 1, 1),
}


def write_tree(tree: Path, headers: dict[str, str]) -> Path:
    folder = tree / "include" / "linux"
    folder.mkdir(parents=True)
    for name, text in headers.items():
        (folder / name).write_text(text)
    return tree


@pytest.mark.parametrize("kernel", HEADERS)
@pytest.mark.parametrize("question", ANSWERS)
def test_headers(kernel: str, question: str, tmp_path: Path) -> None:
    """Differences between kernels are found in their headers."""
    answer = ANSWERS[question][list(HEADERS).index(kernel)]
    assert str(answer) == macros(types_from_headers(str(write_tree(tmp_path, HEADERS[kernel]))))[question]


def test_headers_of_debian(tmp_path: Path) -> None:
    """Debian has most headers in a second directory, which the Makefile of the first includes."""
    common = write_tree(tmp_path / "linux-headers-common", HEADERS["6.15"])
    build = tmp_path / "linux-headers-amd64"
    (build / "include" / "linux").mkdir(parents=True)
    (build / "Makefile").write_text(f"KERNELRELEASE := 6.15\ninclude {common}/Makefile\n")
    assert types_from_headers(str(common)) == types_from_headers(str(build))


def test_headers_in_parts(tmp_path: Path) -> None:
    """A struct that has moved to a header with a similar name is found there."""
    headers = {**HEADERS["5.10"], "mm_types.h": "", "mm_types_task.h": "struct mm_rss_stat rss_stat;"}
    assert macros(types_from_headers(str(write_tree(tmp_path, headers))))["EXISTS_mm_struct___struct_rss_stat"] == "1"


def test_no_headers(tmp_path: Path) -> None:
    """Without headers no feature exists, and nothing is raised."""
    found = macros(types_from_headers(str(tmp_path / "nowhere")))
    assert ["0"] * len(ANSWERS) == [found[question] for question in ANSWERS]
