# SPDX-License-Identifier: Apache-2.0
"""What anybody may have named, for terminals."""


def printable(text: str) -> str:
    """Whoever named a file, a cgroup or a process does not get to speak to the terminal."""
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
