# SPDX-License-Identifier: Apache-2.0
"""Evaluates C expressions: compiles them with the project's headers and runs them."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from .environment import ROOT, require

BPF = ROOT / "bpf"

TYPES = """
#include <stddef.h>
#include <stdio.h>
#include <linux/types.h>
typedef __u16 u16; typedef __u32 u32; typedef __u64 u64; typedef __s32 s32; typedef __s64 s64;
"""


def evaluate(source: str, expressions: Iterable[str], folder: Path) -> dict[str, int]:
    """C expression -> its value, compiled after ``source``."""
    require(shutil.which("cc"), "a C compiler")
    texts = list(expressions)
    lines = "".join(f'printf("%lld\\n", (long long)({expression}));\n' for expression in texts)
    program = folder / "program.c"
    program.write_text(f"{TYPES}{source}\nint main(void)\n{{\n{lines}return 0;\n}}\n")
    subprocess.run(["cc", "-w", f"-I{BPF}", "-o", folder / "program", program], check=True)
    output = subprocess.run([folder / "program"], check=True, capture_output=True, text=True).stdout
    return dict(zip(texts, map(int, output.split()), strict=True))


def struct_text(source: str, opening: str) -> str:
    """The lines of a definition, from the one that starts with ``opening`` to its closing brace."""
    match = re.search(rf"^{re.escape(opening)}.*?^\}}", source, re.MULTILINE | re.DOTALL)
    assert match is not None, opening
    return match[0]


def field_names(struct: str) -> list[str]:
    """Names of the fields in the text of a struct, in order."""
    return re.findall(r"^\t[^/*\n]*?(\w+)(?:\[[^\]]*\])?;", struct, re.MULTILINE)
