# SPDX-License-Identifier: Apache-2.0
"""logs/formats.py, journal.py, dmesg_json.py, scan.py: real reports in every format, and lines that are none."""

import codecs
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from datetime import timezone
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import DATA
from tests.harness.environment import require
from tests.harness.kernel_log_files import FILES, lines, reports
from tests.harness.log_formats import BOOT_ID, BOOT_NS, HOST, SPLIT, WHOLE, entry, export
from tracer.logs.formats import LineFormats
from tracer.logs.log_line import LogLine, Origin
from tracer.logs.oom_lines import may_be_cut
from tracer.logs.scan import LogScan
from tracer.logs.times import Calendar
from tracer.logs.victim_report import VictimReport

FOLDER = DATA / "kernel_logs"
BOOT_UUID = "6a4ce4a0-ba47-11ea-b2a7-0cc47ac5979e"
KILLED = (
    b"Out of memory: Killed process 1 (init) total-vm:1kB, anon-rss:1kB, file-rss:1kB, shmem-rss:0kB, UID:0 "
    b"pgtables:1kB oom_score_adj:0"
)
SECOND_NS = 1_000_000_000


class Found(NamedTuple):
    report: VictimReport
    origin: Origin


def scan(*blocks: bytes, latest_ns: int = BOOT_NS + 86400 * SECOND_NS) -> list[Found]:
    """The reports in a log that comes in these blocks and was last written to at ``latest_ns``."""
    found: list[Found] = []
    reader = LogScan(Calendar(timezone.utc, latest_ns), lambda *each: found.append(Found(*each)))
    for block in blocks:
        reader.feed(block)
    reader.end()
    return found


def timeless(found: Iterable[VictimReport]) -> list[VictimReport]:
    return [
        each._replace(time_ns=None, incident_ns=None, clock=None, wall_ns=None, first_tid=None) for each in found
    ]  # fmt: skip


def wall_ns(report: VictimReport) -> int:
    assert report.time_ns is not None
    return report.time_ns + BOOT_NS


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("form", WHOLE)
def test_whole(form: str, name: str) -> None:
    """A report is the same in every format, and its time is the one that the format has."""
    log = list(lines(FILES[name]))
    expected = reports(log)
    found = scan(WHOLE[form](log))
    assert timeless(expected) == timeless(each.report for each in found)
    for (report, origin), other in zip(found, expected, strict=True):
        if report.clock == "printk":
            assert other.time_ns == report.time_ns
        if report.wall_ns is not None:
            assert 0 <= wall_ns(other) - report.wall_ns < SECOND_NS
        assert (origin.host == HOST) is form.startswith("journal")
        assert (origin.boot_id == BOOT_UUID) is (form in ("journal json", "journal export"))


@pytest.mark.parametrize("name", [name for name in FILES if name != "7.2-oddname"])
@pytest.mark.parametrize("form", SPLIT)
def test_split(form: str, name: str) -> None:
    """The same if records are split into lines."""
    log = list(lines(FILES[name]))
    expected = reports(log)
    found = scan(SPLIT[form](log))
    assert timeless(expected) == timeless(each.report for each in found)
    for (report, _), other in zip(found, expected, strict=True):
        assert report.wall_ns is None or 0 <= wall_ns(other) - report.wall_ns < SECOND_NS


@pytest.mark.parametrize("form", SPLIT)
def test_odd_names_split(form: str) -> None:
    """A newline in a name hides what follows it, and never makes another kill."""
    log = list(lines(FILES["7.2-oddname"]))
    known = {each.tid for each in reports(log)}
    assert {each.report.tid for each in scan(SPLIT[form](log))} <= known


@pytest.mark.parametrize("size", [1, 7, 100, 4096])
@pytest.mark.parametrize("form", ["dmesg", "dmesg -J", "journal export", "journal json", "journal short"])
def test_blocks(form: str, size: int) -> None:
    """Blocks may end anywhere."""
    log = [line for name in ("7.2-oddname", "7.2-group", "6.1-v1-storm") for line in lines(FILES[name])]
    data = WHOLE[form](log)
    found = scan(*(data[at : at + size] for at in range(0, len(data), size)))
    assert timeless(each.report for each in scan(data)) == timeless(each.report for each in found)
    assert len(reports(log)) == len(found)


@pytest.mark.parametrize("form", [*WHOLE, *SPLIT])
def test_among_others(form: str) -> None:
    """Lines between the reports are skipped, and change nothing."""
    log = list(lines(FILES["6.12-other"]))
    data = {**WHOLE, **SPLIT}[form](log)
    noise = {**WHOLE, **SPLIT}[form]([line._replace(text=b"usb 1-1: new device") for line in log] * 200)
    assert timeless(reports(log)) * 2 == timeless(each.report for each in scan(noise + data + noise + data + noise))


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
@pytest.mark.parametrize("form", ["dmesg", "rsyslog", "journal json", "journal export", "journal short"])
def test_without_first_lines(form: str, size: int) -> None:
    """The lines that are left in front of a kill count, in whichever block they are, also among other lines."""
    log = [line for name in ("6.12-other", "6.12-global", "7.2-group") for line in lines(FILES[name])]
    left = [line for line in log if re.search(rb"invoked oom-killer|^CPU: ", line.text) is None]
    spelled = {**WHOLE, **SPLIT}[form]
    noise = spelled([line._replace(text=b"usb 1-1: new device") for line in left] * 20)
    data = noise + spelled(left) + noise
    found = scan(*(data[at : at + size] for at in range(0, len(data), size)))
    assert [each.report.tid for each in found] == [358, 196, 236, 233, 234]
    assert timeless(reports(left)) == timeless(each.report for each in found)
    assert all(each.report.limit_cgroup or each.report.constraint == b"NONE" for each in found)
    assert all(each.report.tasks for each in found)


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(["dmesg", "rsyslog", "journal json", "journal export"]),
    st.sampled_from(["7.2-group", "6.12-other", "5.10-nodump", "6.1-v1-storm"]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60)), max_size=8),
    st.integers(1, 9000),
)
def test_searched_and_fed(form: str, name: str, losses: list[tuple[int, int]], size: int) -> None:
    """A log with missing lines gives the same whether it is searched or each line is fed."""
    log = list(lines(FILES[name]))
    for at, count in losses:
        del log[at % len(log) : at % len(log) + min(count, len(log) - 1)]
    data = {**WHOLE, **SPLIT}[form](log)
    found = scan(*(data[at : at + size] for at in range(0, len(data), size)))
    assert timeless(reports(log)) == timeless(each.report for each in found)


MISSED = {
    "journal short": b"Nov 24 06:00:00 node-1 systemd-journald[310]: Missed 312 kernel messages\n",
    "RFC 5424": b"<30>1 2026-11-24T06:00:00Z node-1 systemd-journald 310 - - Missed 312 kernel messages\n",
    "journal json": entry(
        {"__REALTIME_TIMESTAMP": "1", "_TRANSPORT": "driver", "_HOSTNAME": HOST, "_BOOT_ID": BOOT_ID},
        b"Missed 312 kernel messages",
    ),
    "journal export": export(
        {"__REALTIME_TIMESTAMP": "1", "_TRANSPORT": "driver", "_HOSTNAME": HOST, "_BOOT_ID": BOOT_ID},
        b"Missed 312 kernel messages",
    ),
}


@pytest.mark.parametrize("form", MISSED)
def test_journald_missed_lines(form: str) -> None:
    """Lines before a gap do not belong to a report after it."""
    log = list(lines(FILES["6.12-other"]))
    cut = next(number for number, line in enumerate(log) if line.text.startswith(b"oom-kill:"))
    spelled = {**WHOLE, **SPLIT}[form]
    (found,) = scan(spelled(log[:cut]) + MISSED[form] + spelled(log[cut:]))
    assert timeless([found.report]) == timeless(reports(log[cut:]))
    whole, _ = scan(spelled(log) + MISSED[form] + spelled(log[-1:]))
    assert (whole.report.trigger_tid, whole.report.victims) == (360, None)


def test_damage() -> None:
    """CRLF, leading NULs, lines without a newline, and lines of no program."""
    log = list(lines(FILES["6.12-other"]))
    data = WHOLE["dmesg"](log)
    expected = timeless(reports(log))
    for damaged in (
        data.replace(b"\n", b"\r\n"),
        b"\0" * 70000 + data,
        data.replace(b"\n", b"\n\0\0\0"),
        b"x" * 3_000_000 + b"\n" + data,
        data + b"[  400.000000] " + b"Killed process " * 200_000,
        b"\xff\xfe garbage\n\n\n" + data + b"\n{}\n[]\n{\n}\n",
    ):
        assert expected == timeless(each.report for each in scan(damaged))
        assert expected == timeless(
            each.report for each in scan(*(damaged[at : at + 65536] for at in range(0, len(damaged), 65536)))
        )


@pytest.mark.parametrize("form", [form for form in WHOLE if form != "dmesg -J"])
def test_cut(form: str) -> None:
    """A last line without a newline is ignored: it may continue."""
    data = WHOLE[form](lines(FILES["6.12-other"]))
    cut = data[: data.rindex(b"illed process")] + b"illed process 3"
    assert scan(cut) == []


FORGED = [
    pytest.param(b"kern  :err   : [    1.000000] ", True, id="dmesg -x"),
    pytest.param(b"user  :err   : [    1.000000] ", False, id="dmesg -x, a user's"),
    pytest.param(b"<3>[    1.000000] ", True, id="dmesg -r"),
    pytest.param(b"<12>[    1.000000] ", False, id="dmesg -r, a user's"),
    pytest.param(b"3,1,1000000,-;", True, id="kmsg"),
    pytest.param(b"12,1,1000000,-;", False, id="kmsg, a user's"),
    pytest.param(b"Nov 24 03:51:53 h kernel: ", True, id="syslog"),
    pytest.param(b"Nov 24 03:51:53 h kernel:", True, id="syslog without space"),
    pytest.param(b"Nov 24 03:51:53 h kernel: [    1.0] ", False, id="syslog, odd uptime"),
    pytest.param(b"Nov 24 03:51:53 h root: kernel: ", False, id="logger"),
    pytest.param(b"Nov 24 03:51:53 h root: ", False, id="syslog, another program"),
    pytest.param(b"Nov 24 03:51:53 h kernel[1]: ", False, id="syslog, a program called kernel"),
    pytest.param(b"Nov 24 03:51:53 h user.err kernel: ", False, id="busybox, a user's"),
    pytest.param(b"<11>Nov 24 03:51:53 h kernel: ", False, id="RFC 3164, a user's"),
    pytest.param(b"<3>1 2026-11-24T03:51:53Z h kernel - - - ", True, id="RFC 5424"),
    pytest.param(b'<3>1 2026-11-24T03:51:53Z h kernel - - [a b="\\]"][c] ', True, id="RFC 5424 with data"),
    pytest.param(b"<11>1 2026-11-24T03:51:53Z h kernel - - - ", False, id="RFC 5424, a user's"),
    pytest.param(b"<3>1 2026-11-24T03:51:53Z h root - - - ", False, id="RFC 5424, another program"),
    pytest.param("déc. 24 03:51:53 h kernel: ".encode(), True, id="journal short, French"),
    pytest.param("12月 24 03:51:53 h kernel: ".encode(), True, id="journal short, Chinese"),
    pytest.param(b"Dez 24 03:51:53 h root: kernel: ", False, id="logger, German"),
    pytest.param(b"Nov 24 03:51:53 root[1]: kernel: ", False, id="logger, no host"),
    pytest.param(b"Nov 24 03:51:53 root: ", False, id="syslog, another program, no host"),
    pytest.param(b"[    1.000000] root[1]: kernel: ", False, id="logger, short-monotonic, no host"),
    pytest.param(b"<14>[    1.000000] kernel: ", False, id="dmesg -r, a user's who says kernel"),
    pytest.param(b"user: warning: [2026-11-24T03:51:53Z]: ", False, id="Talos, a user's"),
    pytest.param(b"kern: warning: [2026-11-24T03:51:53Z]: ", True, id="Talos"),
    pytest.param(b"Tue Nov 24 03:51:53 2026 kern.err kernel: ", True, id="OpenWrt"),
    pytest.param(b"Tue Nov 24 03:51:53 2026 user.err kernel: ", False, id="OpenWrt, a user's"),
    pytest.param(b"Tue Nov 24 03:51:53 2026 daemon.err app[1]: ", False, id="OpenWrt, another program"),
]


@pytest.mark.parametrize(("prefix", "counts"), FORGED)
def test_whose(prefix: bytes, counts: bool) -> None:
    """Lines from other programs make no kill, if the format shows the writer."""
    assert len(scan(prefix + KILLED + b"\n")) == counts


JOURNAL = {"__CURSOR": "a", "__REALTIME_TIMESTAMP": "1", "_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0"}


@pytest.mark.parametrize("spell", [entry, export])
def test_whose_in_the_journal(spell: Callable[[dict[str, str], bytes], bytes]) -> None:
    """Only journald's fields show what came from the kernel; a user's fields do not count."""
    fields = {**JOURNAL, "PRIORITY": "3"}
    assert len(scan(spell(fields, KILLED))) == 1
    for other in (
        {**fields, "_TRANSPORT": "syslog"},
        {**fields, "_TRANSPORT": "journal", "TRANSPORT": "kernel"},
        {**fields, "SYSLOG_FACILITY": "1"},
        {name: value for name, value in fields.items() if name != "_TRANSPORT"},
    ):
        assert scan(spell(other, KILLED)) == []


def test_entry_in_an_entry() -> None:
    """Text in a field that looks like the end of an entry, and like another entry, is neither."""
    fields = {**JOURNAL, "_TRANSPORT": "journal"}
    forged = b"x\n\n" + export(JOURNAL, KILLED)
    assert scan(export(fields, forged)) == []
    assert len(scan(export(fields, forged) + export(JOURNAL, KILLED))) == 1
    large = export(fields, forged + b"y" * 3_000_000) + export(JOURNAL, KILLED)
    assert len(scan(large)) == 1
    assert len(scan(*(large[at : at + 65536] for at in range(0, len(large), 65536)))) == 1


def test_two_hosts() -> None:
    """A central log interleaves the lines of many hosts."""
    one = SPLIT["rsyslog"](lines(FILES["6.12-other"])).splitlines(keepends=True)
    other = [line.replace(b"node-1", b"node-2") for line in one]
    found = scan(b"".join(line for pair in zip(one, other, strict=True) for line in pair))
    assert timeless(reports(lines(FILES["6.12-other"]))) * 2 == timeless(each.report for each in found)
    assert {each.origin.host for each in found} == {"node-1", "node-2"}


@pytest.mark.parametrize(
    ("form", "head", "other"),
    [
        pytest.param("rsyslog, RFC 3339", b" node-1 kernel: ", b" node-2 kernel: ", id="host"),
        pytest.param("rsyslog, RFC 3339", b" node-1 kernel: ", b" node-1 kernel-1: ", id="program"),
        pytest.param("rsyslog", b"] ", b"][   T77] ", id="caller"),
        pytest.param("dmesg", b"] ", b"][   T77] ", id="caller-dmesg"),
        pytest.param("dmesg", b"[", b"<14>[", id="facility"),
    ],
)
def test_lines_alike(form: str, head: bytes, other: bytes) -> None:
    """Rows and statistics from other writers, among those of a report and at the same time, change nothing."""
    log = list(lines(FILES["6.12-other"]))
    written = {**WHOLE, **SPLIT}[form](log).splitlines(keepends=True)
    data = b""
    for line in written:
        false = re.sub(rb"(?<=[a-z]) \d+(?=\n)|(?<=\] \[) *\d+(?=\] +\d)", b" 7", line)
        data += line if false == line else line + false.replace(head, other, 1) * 2
    assert len(data.splitlines()) > len(written) + 20
    assert timeless(reports(log)) == timeless(each.report for each in scan(data))


def test_ids_do_not_depend_on_the_format() -> None:
    """All formats with the uptime give the same time of a kill, to the microsecond."""
    log = list(lines(FILES["6.1-v1-storm"]))
    forms = ("dmesg", "dmesg -x", "dmesg -J", "/dev/kmsg", "journal json", "journal export")
    times = {tuple(each.report.time_ns for each in scan(WHOLE[form](log))) for form in forms}
    times.add(tuple(each.report.time_ns for each in scan(SPLIT["rsyslog"](log))))
    assert len(times) == 1


@pytest.mark.parametrize("option", ["", "-T", "-x", "-r", "-d", "--time-format=iso", "-x -T"])
@pytest.mark.parametrize("name", ["6.12-other", "7.2-group", "6.1-v1-storm", "6.12-global"])
def test_dmesg(option: str, name: str, tmp_path: Path) -> None:
    """The output of util-linux's dmesg; not -J, which in 2.38 does not end a message of a file."""
    require(shutil.which("dmesg") is not None, "dmesg (util-linux)")
    file = tmp_path / "log"
    file.write_bytes(SPLIT["dmesg -r"](lines(FILES[name])))
    command = ["dmesg", *option.split(), "-F", str(file)]
    log = subprocess.run(command, capture_output=True, check=True, timeout=20).stdout
    assert timeless(reports(lines(FILES[name]))) == timeless(each.report for each in scan(log))


@given(st.lists(st.binary(max_size=60), max_size=30))
def test_garbage(blocks: list[bytes]) -> None:
    """Any input: it never raises."""
    scan(*blocks)


SEEDS = [
    render(lines(FILES["7.2-oddname"])) for form, render in {**WHOLE, **SPLIT}.items() if form != "dmesg"
]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 30000), st.binary(max_size=12)), max_size=12))
def test_damaged(log: bytes, changes: list[tuple[int, bytes]]) -> None:
    """A damaged log does not raise either."""
    data = bytearray(log)
    for at, piece in changes:
        data[at : at + len(piece)] = piece
    scan(bytes(data))


ALIKE = [
    (form, name)
    for form in (
        "dmesg",
        "dmesg -x",
        "dmesg -d",
        "rsyslog",
        "rsyslog without uptime",
        "rsyslog, RFC 3339",
        "journal short",
    )
    for name in ("7.2-oddname", "7.2-group", "6.12-other", "6.1-v1-storm")
]
_at = st.integers(0, 500)
CHANGES = st.one_of(
    st.tuples(st.just("move"), _at, _at),
    st.tuples(st.just("copy"), _at, _at),
    st.tuples(st.just("drop"), _at, st.integers(1, 30)),
    st.tuples(st.just("rows"), _at, st.integers(1, 3000)),
    st.tuples(st.just("host"), _at, st.integers(1, 90)),
    st.tuples(
        st.just("write"), _at, st.sampled_from([b"\\x41", b" ", b"\r", b"9", b"kernel: ", b"\n ", b"\n", b"ill "])
    ),
)


def change(log: list[bytes], how: str, at: int, what: int | bytes) -> None:
    """Damage a log a little."""
    at %= len(log)
    if isinstance(what, bytes):
        place = (at * 7) % len(log[at])
        log[at] = log[at][:place] + what + log[at][place:]
    elif how == "drop":
        del log[at : at + min(what, len(log) - 1)]
    elif how == "host":
        others = [line.replace(HOST.encode(), b"node-2") for line in log[at : at + what]]
        log[at : at + what] = [line for pair in zip(others, log[at : at + what], strict=True) for line in pair]
    elif how == "rows":
        at = next((number for number, line in enumerate(log[at:], at) if re.search(rb"\[ +\d+\] +\d+ +\d+ ", line)), at)
        log[at:at] = [re.sub(rb"(?<=\[ )( *)\d+(?=\] +\d+ +\d+ )", rb"\g<1>%d" % n, log[at]) for n in range(what)]
    else:
        log.insert(what % len(log), log[at] if how == "copy" else log.pop(at))


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(ALIKE), st.lists(CHANGES, max_size=6), st.integers(1, 9000))
def test_together_and_alone(form: tuple[str, str], changes: list[tuple[str, int, int | bytes]], size: int) -> None:
    """The fast path for lines with the same prefix gives the same reports as parsing each line."""
    log = {**WHOLE, **SPLIT}[form[0]](lines(FILES[form[1]])).splitlines(keepends=True)
    for each in changes:
        change(log, *each)
    data = b"".join(log)
    blocks = [data[at : at + size] for at in range(0, len(data), size)] if len(data) < 1 << 16 else [data]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LineFormats, "prefix", lambda _: None)
        alone = scan(*blocks)
    assert scan(*blocks) == alone


def test_boot_id_is_not_made_up() -> None:
    """An invalid boot id is null."""
    found = scan(entry({**JOURNAL, "_BOOT_ID": BOOT_ID[:-1]}, KILLED))
    assert [each.origin for each in found] == [Origin(None, None)]


UNREAD_STAMPS = [
    "Dez 04 03:51:53",
    "déc. 04 03:51:53.123456",
    "13月 04 03:51:53",
    "June 04 03:51:53",
    "Feb 30 03:51:53",
]


@pytest.mark.parametrize("stamp", UNREAD_STAMPS)
def test_stamp_that_cannot_be_read(stamp: str) -> None:
    """The kill has all values but its time; kills of different seconds are distinct."""
    log = WHOLE["journal short"](lines(FILES["7.2-group"]))
    month_and_day = stamp[: stamp.index(":") - 3].encode()
    found = scan(log.replace(b"Nov 24", month_and_day))
    assert timeless(each.report for each in found) == timeless(reports(lines(FILES["7.2-group"])))
    assert {(each.report.clock, each.report.wall_ns) for each in found} == {("unknown", None)}
    one, other = (scan(b"%s h kernel: %s\n" % (each.encode(), KILLED))[0].report for each in (stamp, stamp[:-1] + "0"))
    assert one.time_ns != other.time_ns


@pytest.mark.parametrize("zone", ["+03", "-0330", "+05:45", "UTC", "CET"])
def test_zones_of_journalctl(zone: str) -> None:
    """Of 518 zones, 199 have only a number as their name."""
    (found,) = scan(f"Tue 2026-11-24 03:51:53 {zone} h kernel: ".encode() + KILLED + b"\n")
    hours = {"+03": 3, "-0330": -3.5, "+05:45": 5.75}.get(zone, 0)
    midnight_ns = BOOT_NS - 6 * 3600 * SECOND_NS
    assert found.report.wall_ns == midnight_ns + (3 * 3600 + 51 * 60 + 53 - int(hours * 3600)) * SECOND_NS


NO_HOST = [
    *(("journal " + form) for form in ("short", "short-precise", "short-iso", "short-full", "short-unix")),
    "journal short-monotonic",
    "rsyslog",
]


@pytest.mark.parametrize("form", NO_HOST)
def test_without_host(form: str) -> None:
    """``journalctl --no-hostname``, and ``syslogd -S`` of busybox."""
    log = list(lines(FILES["7.2-group"]))
    whole = {**WHOLE, **SPLIT}[form](log)
    found = scan(whole.replace(b" node-1 kernel: ", b" kernel: "))
    assert [each.report for each in found] == [each.report for each in scan(whole)] != []
    assert {each.origin for each in found} == {Origin(None, None)}


def test_rfc5424_of_the_network() -> None:
    """rsyslog keeps the space in front of a message that came by RFC 3164."""
    log = SPLIT["RFC 5424"](lines(FILES["6.12-other"]))
    spaced = log.replace(b" - - - [", b" - - -  [")
    assert spaced != log
    assert scan(spaced) == scan(log) != []
    without = SPLIT["rsyslog without uptime"](lines(FILES["6.12-other"]))
    stamped = without.replace(b"Nov 24 ", b"<3>1 2026-11-24T").replace(b" node-1 kernel: ", b"Z node-1 kernel - - -  ")
    assert timeless(each.report for each in scan(stamped)) == timeless(reports(lines(FILES["6.12-other"])))


@pytest.mark.parametrize(("comma", "colon"), [(", ", ": "), (", ", " : ")])
def test_json_with_spaces(comma: str, colon: str) -> None:
    """As journalctl wrote it until systemd 240, also names that are not UTF-8, as lists of numbers."""
    log = WHOLE["journal json"](lines(FILES["7.2-oddname"]))
    assert b'"MESSAGE":[' in log
    spaced = [json.dumps(json.loads(line), separators=(comma, colon)) for line in log.splitlines()]
    assert scan("\n".join([*spaced, ""]).encode()) == scan(log) != []


def test_json_over_many_lines() -> None:
    """``journalctl -o json-pretty`` is not read, and does not pass for a log without kills."""
    log = WHOLE["journal json"](lines(FILES["7.2-group"]))
    reader = LogScan(Calendar(timezone.utc), lambda *_: pytest.fail("a kill"))
    reader.feed("\n".join(json.dumps(json.loads(line), indent="\t") for line in log.splitlines()).encode())
    reader.end()
    assert reader.has_begun
    assert not reader.recognized


def is_recognized(log: bytes) -> bool:
    """Whether a log without kills is recognized as a log."""
    reader = LogScan(Calendar(timezone.utc), lambda *_: pytest.fail("a kill"))
    reader.feed(log)
    reader.end()
    return reader.recognized > 0


@pytest.mark.parametrize("field", ['"time": "2026-11-24T06:00:00.1Z"', '"pri": 3', '"msg": 7', '"time": {'])
def test_json_of_something_else(field: str) -> None:
    """Fields with the names of those of ``dmesg -J`` do not make a log of any JSON."""
    assert not is_recognized(f'{{\n    "schema": 1,\n    {field},\n    "type": "start"\n}}\n'.encode() * 9)


def test_dmesg_json_without_kills() -> None:
    """The object is recognized by its first line, or, if that is missing, by its fields."""
    log = WHOLE["dmesg -J"](LogLine(b"usb 1-1: new device", n, "printk") for n in range(3))
    assert is_recognized(log)
    assert is_recognized(log.replace(b'"pri"', b'"fac": "user",\n         "pri"'))
    assert is_recognized(log[log.index(b"}") :])
    assert is_recognized(b'{\n   "dmesg": [\n   ]\n}\n')


@pytest.mark.parametrize("form", ["dmesg", "rsyslog", "journal short", "RFC 5424", "dmesg -T"])
def test_byte_order_mark(form: str) -> None:
    """A byte order mark does not hide the first line."""
    log = {**WHOLE, **SPLIT}[form](lines(FILES["6.12-other"]))
    assert scan(codecs.BOM_UTF8 + log) == scan(log)
    assert scan(log)[0].report.trigger_comm is not None


def test_log_after_something_else() -> None:
    """A log is recognized however late it begins."""
    log = SPLIT["rsyslog"]([LogLine(b"usb 1-1: new device", 1, "printk")])
    for blocks in ([b"Welcome\n", log], [b"Welcome\n", b"to\n" * 9999, log, b"\n"], [b"Welcome\n", log[:-1]]):
        reader = LogScan(Calendar(timezone.utc), lambda *_: pytest.fail("a kill"))
        for block in blocks:
            reader.feed(block)
        reader.end()
        assert reader.recognized


def kmsg(records: Iterable[tuple[str, bytes]]) -> bytes:
    """The output of ``cat /dev/kmsg`` for records, by flags and text; since Linux 6.4 a record ends at 2048 bytes."""
    log = b""
    for number, (flags, text) in enumerate(records):
        escaped = re.sub(rb"[^ -\[\]-~]", lambda match: b"\\x%02x" % match[0][0], text)
        log += (b"6,%d,%d,%s;%s\n" % (400 + number, 21_000_000 + number, flags.encode(), escaped))[:2048]
    return log


@pytest.mark.parametrize("length", [300, 490, 520, 700, 1024])
def test_record_longer_than_kmsg_gives(length: int) -> None:
    """The kernel cuts a record with many unprintable bytes; the next record follows on the same line."""
    path = (b"/" + b"\xff" * 200) * 6
    path = path[:length]
    found = scan(
        kmsg(
            [
                ("-", b"eat invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"),
                ("-", b"CPU: 0 UID: 0 PID: 172 Comm: eat Not tainted 7.3.4 #1 PREEMPT(lazy)"),
                ("-", b"memory: usage 8192kB, limit 8192kB, failcnt 18"),
                ("-", b"Memory cgroup stats for "),
                ("c", path),
                ("c", b":"),
                ("-", b"anon 8364032"),
                ("-", b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg="),
                ("c", path),
                ("c", b",task_memcg="),
                ("c", path),
                ("c", b",task=eat,pid=172,uid=0"),
                ("-", b"Memory cgroup out of memory: Killed process 172 (eat) total-vm:17592kB, anon-rss:8240kB, "
                      b"file-rss:4kB, shmem-rss:704kB, UID:0 pgtables:52kB oom_score_adj:0"),
            ]
        )
    )  # fmt: skip
    (report,) = (each.report for each in found)
    assert (report.trigger_tid, report.trigger_comm, report.gfp_mask) == (172, b"eat", 0xCC0)
    assert report.limit_cgroup is not None
    assert report.cgroup is not None
    for cgroup in (report.limit_cgroup, report.cgroup):
        known = re.sub(rb"\\[x\da-f]*$", b"", cgroup)  # an escape may have been cut, too
        assert path.startswith(known)
        assert known == path or may_be_cut(cgroup)


def test_name_that_looks_like_the_next_record() -> None:
    """Text in a path at the position where a newer kernel cuts a record is not a record."""
    forged = b"6,1,1,-;Memory cgroup out of memory: Killed process 1 (init) total-vm:1kB, anon-rss:1kB, file-rss:1kB"
    header = len(b"6,400,21000000,-;")
    name = b"/" + b"\xff" * ((2048 - header - 1) // 4)
    name += (
        b"x" * (2048 - header - 1 - 4 * (len(name) - 1))
        + forged
        + b", shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0"
    )
    log = re.sub(rb"[^ -\[\]-~]", lambda match: b"\\x%02x" % match[0][0], name)
    assert scan(b"6,400,21000000,-;" + log + b"\n") == []
