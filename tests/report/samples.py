# SPDX-License-Identifier: Apache-2.0
"""Records for the report's tests: from real kernel logs, and many variations of these."""

import copy
import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from tests.harness.kernel_log_files import FILES, lines, reports
from tracer.base.clock import format_rfc3339
from tracer.identity.enrich import enrich_cgroups
from tracer.logs.log_records import LogRecords

Record = dict[str, Any]

BEGIN_NS = int(datetime(2026, 11, 1, tzinfo=timezone.utc).timestamp()) * 10**9
HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "a\u2028b\u2029c",
    "'\"`${window.hacked=1}",
    "\x1b[31mred\x07\n[link](javascript:hacked)|cell",
    "\u202egnp.exe",
    "@script@ @index@ &lt;b&gt;",
    "a" * 2000,
)
"""Hostile names, as a container may choose them."""


def of_kernel_logs() -> list[Record]:
    """Records of the kills in tests/data/kernel_logs."""
    found: list[Record] = []
    for name in sorted(FILES):
        builder = LogRecords(f"b{len(found):07x}", 4096)
        for report in reports(lines(FILES[name])):
            record: Any = builder.oom_kill(report)
            record["host"] = {"name": "node-1", "boot_id": None, "kernel": None, "labels": None}
            enrich_cgroups(record)
            found.append(record)
    return found


def many(bases: Sequence[Record], number: int, seed: int = 1) -> Iterator[Record]:
    """This many incidents of five nodes and 60 containers in 24 days: leaks, bursts, and some without a pattern.

    Their figures are those of the real records.
    """
    random_ = random.Random(seed)
    moments = sorted(_moments(number, random_))
    for count, (second, container) in enumerate(moments):
        record = copy.deepcopy(random_.choice(bases))
        node = container % 5
        time_ns = BEGIN_NS + int(second * 1e9)
        record["id"] = f"{record['id']}-{count}"
        record["incident"]["id"] = f"{record['incident']['id']}-{count}"
        record["incident"]["victims"] = 1
        record["time"] = format_rfc3339(time_ns)
        record["host"]["name"] = f"node-{node + 1}"
        service = ("cart", "search", "billing", "mail", "import", "web")[container % 6]
        if container % 7:
            record["container"] = {
                "id": f"{container:064x}",
                "runtime": "containerd" if container % 3 else "docker",
                "name": f"{service}-{container}",
                "image": f"registry.example/shop/{service}:1.{container % 4}",
                "labels": {},
                "node_container_id": None,
                "ip_addresses": None,
            }
        if container % 7 and container % 3:
            record["kubernetes"] = {
                "pod_name": f"{service}-7c9d-{container:05x}",
                "namespace": ("shop", "batch", "infra")[container % 3],
                "pod_uid": None,
                "container_name": service,
                "qos_class": "Burstable",
            }
        yield record


def _moments(number: int, random_: random.Random) -> Iterator[tuple[float, int]]:
    span_s = 24 * 86400.0
    for count in range(number):
        container = count % 60
        turn, turns = count // 60, number // 60 + 1
        if container < 20:  # leaks
            yield (turn + 0.5 + random_.uniform(-0.04, 0.04)) * span_s / turns, container
        elif container < 40:  # bursts
            yield (turn // 12) * span_s / (turns // 12 + 1) + (turn % 12) * random_.uniform(0.5, 8), container
        else:
            yield random_.uniform(0, span_s), container
