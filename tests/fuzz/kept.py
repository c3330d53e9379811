# SPDX-License-Identifier: Apache-2.0
"""Damaged kernel log, spool and ledger, left by the kernel, an earlier daemon, or somebody who can change them."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import orjson

from tests.harness.kernel_log_files import FILES, lines
from tests.harness.records import HOST
from tests.harness.schema import validate
from tracer.accounting.ledger import Ledger, LedgerEntry
from tracer.delivery.spool import Spool
from tracer.encoding import encoder
from tracer.logs.log_line import LogLine
from tracer.logs.log_records import LogRecords
from tracer.logs.oom_report import ReportAssembler

from .target import Target

BOOT = "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e"
_LINES = [b'{"seq":%d}\n' % number for number in range(3)]


def run_oom_report(data: bytes) -> None:
    """There are no more kills than "Killed process" lines; each is one valid record."""
    reports, records = ReportAssembler(), LogRecords("6a4ce4a0", 4096)
    found = []
    for number, text in enumerate(data.split(b"\n")):
        found += list(reports.feed(LogLine(text, number * 1000, "printk")))
    found += reports.end()
    assert len(found) <= data.count(b"illed process")
    for report in found:
        record = records.oom_kill(report)
        record["host"] = HOST
        encoded = encoder.encode(record)
        assert encoded.count(b"\n") == 1
        validate(orjson.loads(encoded))


def oom_report_seeds() -> list[bytes]:
    return [b"\n".join(line.text for line in lines(log))[:16384] for log in list(FILES.values())[::3]]


def in_a_folder(run: Callable[[Path, bytes], None]) -> Callable[[bytes], None]:
    def run_there(data: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="oomtrace-fuzz-") as folder:
            run(Path(folder), data)

    return run_there


def run_spool(folder: Path, data: bytes) -> None:
    """The first byte selects the spool's file with the rest as content: new lines still come out, last and in order."""
    spool = Spool(str(folder), "file:/x")
    for each in _LINES:
        assert spool.append(each)
    spool.peek(1)
    spool.advance(1)
    spool.close()
    files = sorted(path for path in Path(spool.path).iterdir() if path.is_file())
    files[(data[:1] or b"\0")[0] % len(files)].write_bytes(data[1:])
    again = Spool(str(folder), "file:/x")
    assert again.append(b'{"seq":"last"}\n')
    lines_out = []
    for _ in range(len(data) + 10):
        lines = again.peek(1)
        if not lines:
            break
        lines_out += lines
        again.advance(1)
    assert lines_out[-1] == b'{"seq":"last"}\n'
    assert all(isinstance(orjson.loads(each), dict) for each in lines_out)
    assert again.is_empty
    again.close()


def spool_seeds() -> list[bytes]:
    return [bytes([kind]) + content for kind in range(4) for content in (b"", b"".join(_LINES), b"\0" * 64, b"1 11")]


def run_ledger(folder: Path, data: bytes) -> None:
    """With any content of the ledger, counts are saved and available to the next daemon."""
    path = folder / "ledger"
    path.write_bytes(data)
    ledger = Ledger(str(path), BOOT)
    before = ledger.explained
    list(ledger.entries())
    ledger.note(5_000, 17, counts_twice=True)
    assert ledger.explained == before + 1
    ledger.save()
    again = Ledger(str(path), BOOT)
    assert again.explained == before + 1
    assert LedgerEntry(5_000, 17) in again.entries()
    ledger.close()
    again.close()


def ledger_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory(prefix="oomtrace-fuzz-") as folder:
        path = os.path.join(folder, "ledger")
        ledger = Ledger(path, BOOT)
        ledger.mark_explained(40, 1_000)
        ledger.note(5_000, 17, counts_twice=False)
        ledger.save()
        return [Path(path).read_bytes(), b""]


KEPT = (
    Target("oom_report", run_oom_report, oom_report_seeds),
    Target("spool", in_a_folder(run_spool), spool_seeds),
    Target("ledger", in_a_folder(run_ledger), ledger_seeds),
)
