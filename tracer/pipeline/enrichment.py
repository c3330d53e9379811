# SPDX-License-Identifier: Apache-2.0
"""What a record gets beside its events: container, pod and unit, what /proc shows, network interfaces, redaction."""

from functools import partial
from typing import TYPE_CHECKING

from tracer.capture import wire
from tracer.identity import enrich
from tracer.identity.metadata_cache import MetadataCache
from tracer.reading.procfs_reader import ProcfsReader
from tracer.records.model import OomKill, Sigkill

if TYPE_CHECKING:
    from tracer.identity.interface_cache import InterfaceCache


class Enrichment:
    """Completes records in place; never raises for what cannot be read, which stays null."""

    def __init__(
        self, names: MetadataCache, processes: ProcfsReader, interfaces: "InterfaceCache | None", redact: enrich.Redact
    ) -> None:
        self._names = names
        self._processes = processes
        self._interfaces = interfaces
        self._redact = redact

    def configure(self, redact: enrich.Redact) -> None:
        """Redact command lines so from now on."""
        self._redact = redact

    def prepare(self, cgroup: str | None) -> None:
        """Read in advance the names and addresses of the container in a new cgroup; None: of all cgroups."""
        self._names.prefetch(cgroup)
        if self._interfaces is not None:
            self._interfaces.prefetch(cgroup)

    def complete_kill(self, record: OomKill, victim: wire.VictimEvent) -> None:
        """Complete the record of a victim that the programs saw."""
        interfaces = None
        if self._interfaces is not None:
            interfaces = partial(self._interfaces.look_up, victim.network_cookie, record["victim"]["cgroup"])
        look = self._processes.look
        enrich.enrich_oom_kill(record, victim.started_ns, self._names, self._redact, interfaces, look)

    def complete_logged_kill(self, record: OomKill) -> None:
        """Complete the record of a kill that only the kernel log reports: its process is gone."""
        enrich.enrich_oom_kill(record, None, self._names, self._redact)

    def complete_sigkill(self, record: Sigkill) -> None:
        """Complete victim and sender."""
        enrich.enrich_sigkill(record, self._names)
