# SPDX-License-Identifier: Apache-2.0
"""``oomtrace resolve``: the owner of a cgroup or process, and the cgroup of a name."""

from collections.abc import Iterator

import typer

from tracer.base.printable import printable
from tracer.commands.common import JSON, RUNTIME_ROOTS, print_json, runtimes
from tracer.commands.manual import codes, documented
from tracer.identity.resolve import ResolvedTarget, resolve_target
from tracer.records.owner import owner_of


@documented(
    {
        "oomtrace resolve $$": "Container, pod and unit of this shell.",
        "oomtrace resolve --json /sys/fs/cgroup/system.slice/ssh.service": "The same of a cgroup, as JSON.",
        "sudo oomtrace resolve shop/cart-7d9f": "The cgroup of a pod.",
    },
    codes(),
)
def resolve(
    target: str = typer.Argument(
        ...,
        metavar="NAME",
        help=(
            "Cgroup path (/sys/fs/cgroup/..., /docker/...), PID, or a running container, pod or unit, as for "
            "`oomtrace why`."
        ),
    ),
    as_json: bool = JSON,
    runtime_root: list[str] = RUNTIME_ROOTS,
) -> None:
    """Show the cgroup, container, pod and unit of a name or process."""
    with runtimes(runtime_root) as found:
        resolved = resolve_target(target, found)
    if as_json:
        print_json(resolved)
    else:
        print(_describe(resolved), end="")


def _names(resolved: ResolvedTarget) -> Iterator[str | None]:
    owner = owner_of(resolved)
    yield None if owner.container is None else f"container {owner.container['name'] or owner.container['id']}"
    yield None if owner.kubernetes is None else f"pod {owner.kubernetes['pod_name'] or owner.kubernetes['pod_uid']}"
    yield None if owner.systemd is None else f"unit {owner.systemd['unit'] or owner.systemd['slice']}"


def _describe(resolved: ResolvedTarget) -> str:
    lines = [f"cgroup      {resolved['cgroup']} ({resolved['level']})"]
    for part in ("container", "kubernetes", "systemd"):
        fields = resolved[part]
        shown = ", ".join(f"{name} {value}" for name, value in (fields or {}).items() if value is not None)
        lines.append(f"{part:11} {shown or 'none'}")
    if resolved["owner"] is not None:
        shown = ", ".join(name for name in _names(resolved) if name is not None)
        lines.append(f"owner       {shown or 'the host'}")
    return "".join(f"{printable(line)}\n" for line in lines)
