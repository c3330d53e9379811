# SPDX-License-Identifier: Apache-2.0
"""An oom_kill record -> the names that a kill is listed and searched by."""

from collections.abc import Iterator
from typing import NamedTuple

from tracer.records.matching import shown_container, shown_unit
from tracer.records.model import OomKill
from tracer.records.owner import owner_of


class VictimNames(NamedTuple):
    """Names of a victim's owner; None: it has none, or it is unknown."""

    container: str | None
    image: str | None
    node: str | None
    namespace: str | None
    workload: str
    """A name that survives a restart: the thing that leaks, if there is a leak."""

    def facets(self) -> Iterator[tuple[str, str | None]]:
        """Each of FACETS with its value."""
        return ((facet, getattr(self, facet)) for facet in FACETS)


FACETS = ("container", "image", "node", "namespace")
"""Fields of VictimNames, in the order of all views."""


def victim_names(record: OomKill) -> VictimNames:
    """Names as in the record: untrusted, to be escaped before they are shown."""
    owner = owner_of(record)
    container, kubernetes, name = owner.container, owner.kubernetes, shown_container(record)
    namespace = None
    if kubernetes is not None:
        namespace = kubernetes["namespace"]
        in_pod = (kubernetes["pod_name"], kubernetes["container_name"])
        name = "/".join(part for part in in_pod if part) or name
    unit = shown_unit(record)
    victim, limit = record["victim"], record["limit"]
    cgroup = victim["cgroup"] or (None if limit is None else limit["cgroup"])
    parts = (namespace, name) if name is not None else (unit or cgroup or victim["comm"] or "unknown",)
    return VictimNames(
        name,
        None if container is None else container["image"],
        record["host"]["name"],
        namespace,
        "/".join(part for part in parts if part),
    )


def search_terms(record: OomKill) -> list[str]:
    """All names and ids that a search compares."""
    victim, container, kubernetes = record["victim"], record["container"], record["kubernetes"]
    found = [victim["comm"], *(victim["cmdline"] or ()), victim["exe"], victim["cgroup"], str(victim["pid"] or "")]
    found += [*victim_names(record), record["id"], record["incident"]["scope"]]
    found += (record["host"]["labels"] or {}).values()
    if container is not None:
        found += [container["id"], container["name"]]
    if kubernetes is not None:
        found.append(kubernetes["pod_uid"])
    if record["trigger"] is not None:
        found.append(record["trigger"]["comm"])
    if record["limit"] is not None:
        found.append(record["limit"]["cgroup"])
    return [name for name in found if name]
