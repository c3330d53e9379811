# SPDX-License-Identifier: Apache-2.0
"""Makes untrusted names safe for terminals."""


def printable(text: str) -> str:
    """Escape non-printable characters: anybody may name a file, a cgroup or a process, and a terminal obeys escape
    sequences."""
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
