# SPDX-License-Identifier: Apache-2.0
"""Input files and Markdown of the report.  tests/report tests the page in a browser."""

import codecs
import copy
import gzip
import html
import json
import lzma
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options

from tests.harness import DATA
from tests.harness.environment import require
from tests.harness.kernel_log_files import FILES, lines
from tests.harness.kmsg_pipe import kmsg_of
from tests.harness.log_formats import BOOT_ID, HOST, SPLIT, WHOLE
from tests.report.samples import HOSTILE, many, of_kernel_logs
from tracer.base.errors import EXIT_FAILED, EXIT_USAGE, TracerError
from tracer.base.printable import printable
from tracer.logs import kills, kmsg, this_boot
from tracer.records.host import read_host
from tracer.report import make
from tracer.report.incidents import Collection, workloads
from tracer.report.inputs import ReportInputs
from tracer.report.make import ReportOptions, write_report
from tracer.report.markdown import code
from tracer.report.memory import memory_parts, size_text
from tracer.report.page import render_page

BASES = of_kernel_logs()


def written(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def read(*paths: str) -> tuple[Collection, list[int]]:
    """The kills in the files, and the number of bad lines of each."""
    collection = Collection()
    inputs = ReportInputs(collection)
    for path in paths:
        inputs.read(path)
    inputs.end()
    return collection, [each.bad for each in inputs.read_so_far]


def test_bad_lines(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Bad lines are counted, reported once, and skipped."""
    path = tmp_path / "oom.json"
    good = [json.dumps(record).encode() for record in many(BASES, 20)]
    bad = [b"not JSON", b'{"schema":1,"type":"oom_kill"}', b"x" * 3_000_000, good[3][:-9], b"\xff\xfe"]
    path.write_bytes(b"\n".join([*bad[:2], *good[:10], b"", *bad[2:], *good[10:]]))
    assert write_report([str(path)], ReportOptions("md", last=3)) == 0
    captured = capsysbinary.readouterr()
    assert captured.err == f"oomtrace: {path}: 5 lines are not records and were skipped\n".encode()
    assert b"20 incidents, 20 victims." in captured.out
    assert b"were skipped: 5" in captured.out
    assert captured.out.count(b"\n## ") == 3
    assert b"17 older incidents are not shown." in captured.out


def test_journal(tmp_path: Path) -> None:
    """Journal entries with records are read; other messages of the unit count as bad."""
    path = tmp_path / "journal.json"
    texts = ["Started oomtrace.service.", *(json.dumps(record) for record in many(BASES, 5))]
    path.write_text("".join(json.dumps({"_BOOT_ID": "1" * 32, "MESSAGE": text}) + "\n" for text in texts))
    collection, bad = read(str(path))
    assert (len(collection.incidents()), bad) == (5, [1])


@pytest.mark.parametrize("first", ["records", "kernel log"])
def test_journal_of_the_whole_host(first: str, tmp_path: Path) -> None:
    """Records and kernel lines in one journal are both read, in any order."""
    records = many(BASES, 5)
    texts = ["Started oomtrace.service.", *(json.dumps(record) for record in records)]
    said = b"".join(json.dumps({"_BOOT_ID": "1" * 32, "MESSAGE": text}).encode() + b"\n" for text in texts)
    log = WHOLE["journal json"](lines(FILES["7.2-group"]))
    path = tmp_path / "journal.json"
    path.write_bytes(said + log if first == "records" else log + said)
    collection, bad = read(str(path))
    assert len(collection.incidents()) == 6
    assert bad == [1 if first == "records" else 0]
    sources = [kill.record["source"] for each in collection.incidents() for kill in each.kills if kill.lines]
    assert sources == ["kernel_log"] * 3


def test_compressed_and_repeated(tmp_path: Path) -> None:
    """Any compression is read; the same kill in several files counts once."""
    require(shutil.which("zstd"), "zstd")
    plain = Path(written(tmp_path / "plain", list(many(BASES, 30))))
    data = plain.read_bytes()
    (tmp_path / "gz").write_bytes(gzip.compress(data))
    (tmp_path / "xz").write_bytes(lzma.compress(data))
    subprocess.run(["zstd", "-q", plain, "-o", tmp_path / "zst"], check=True, timeout=20)
    for name in ("plain", "gz", "xz", "zst"):
        assert len(read(str(tmp_path / name))[0].incidents()) == 30
    collection, bad = read(*(str(tmp_path / name) for name in ("plain", "gz", "xz", "zst")))
    assert (len(collection.incidents()), collection.repeated, bad) == (30, 90, [0] * 4)


def test_group_kill_is_one_incident() -> None:
    """All victims of a group kill are in one incident, with their exits."""
    collection = Collection()
    log = list(lines(FILES["7.2-group"]))
    assert len(log) > 50
    group = [record for record in BASES if record["incident"]["group_kill"]]
    first = group[0]["incident"]["id"]
    group = [record for record in group if record["incident"]["id"] == first]
    (other,) = [record for record in BASES if record["incident"]["scope"] == "sysrq"][:1]
    for record in [*group, other]:
        collection.add(record)  # type: ignore[arg-type]
    gone: Any = {
        **{name: group[0][name] for name in ("schema", "time", "seq", "host", "id")},
        "type": "oom_exit",
        "incident_id": first,
        "pid": 1,
        "after_ns": 5,
        "container_init_died": None,
        "runtime_verdict": None,
    }
    collection.add(gone)
    incidents = collection.incidents()
    assert sorted(len(incident.kills) for incident in incidents) == [1, len(group)]
    (incident,) = [incident for incident in incidents if len(incident.kills) > 1]
    assert [kill.exit for kill in incident.kills] == [gone] + [None] * (len(group) - 1)


def test_kernel_log_of_the_same_kills(tmp_path: Path) -> None:
    """Kills in records and in a kernel log count once, with the log's lines."""
    path = tmp_path / "journal.json"
    path.write_bytes(WHOLE["journal json"](lines(FILES["7.2-group"])))
    logged = [kill for incident in read(str(path))[0].incidents() for kill in incident.kills]
    assert len(logged) == 3
    seen = []
    for number, kill in enumerate(logged):
        record: Any = copy.deepcopy(kill.record)
        record.update(id=f"{BOOT_ID[:8]}-{number}", source="bpf")
        seen.append(record)
    collection, _ = read(written(tmp_path / "oom.json", seen), str(path))
    (incident,) = collection.incidents()
    assert [kill.record["id"] for kill in incident.kills] == [f"{BOOT_ID[:8]}-{number}" for number in range(3)]
    assert collection.repeated == 3
    for kill in logged:
        killed = f"Killed process {kill.record['victim']['tid']} ({kill.record['victim']['comm']})"
        assert any(killed in line for line in incident.lines)
    assert "invoked oom-killer" in incident.lines[0]
    other: Any = [{**record, "host": {**record["host"], "boot_id": "another"}} for record in seen]
    collection, _ = read(written(tmp_path / "other.json", other), str(path))
    assert (sum(len(incident.kills) for incident in collection.incidents()), collection.repeated) == (6, 0)


@pytest.mark.parametrize("name", ["7.2-group", "6.12-other"])
def test_logs_in_several_forms(name: str, tmp_path: Path) -> None:
    """A kill in several logs, of any format and in any order, counts once, and keeps the log's lines."""
    paths = []
    for number, wrapped in enumerate([*WHOLE.values(), *SPLIT.values()]):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(wrapped(lines(FILES[name])))
    records = [kill.record for path in paths for each in read(str(path))[0].incidents() for kill in each.kills]
    files = [written(tmp_path / "parsed", records), *map(str, paths)]  # type: ignore[arg-type]
    for order in (files, files[::-1]):
        collection, _ = read(*order)
        (incident,) = collection.incidents()
        victims = 3 if name == "7.2-group" else 1
        assert (len(incident.kills), collection.repeated) == (victims, victims * (2 * len(paths) - 1))
        assert all(kill.record["time"] and kill.record["host"]["name"] == HOST for kill in incident.kills)
        assert "invoked oom-killer" in incident.lines[0]


@pytest.mark.parametrize("form", ["rsyslog without uptime", "rsyslog", "journal short"])
def test_hosts_with_the_same_ids(form: str, tmp_path: Path) -> None:
    """The same pid in the same second on two hosts are two kills; a log without a host matches one of them."""
    log = {**WHOLE, **SPLIT}[form](lines(FILES["7.2-group"]))
    paths = [tmp_path / name for name in ("node-1", "node-2")]
    for path in paths:
        path.write_bytes(log.replace(HOST.encode(), path.name.encode()))
    (tmp_path / "none").write_bytes(WHOLE["dmesg -T"](lines(FILES["7.2-group"])))
    for files in (paths, paths[::-1], [tmp_path / "none", *paths], [*paths, tmp_path / "none"]):
        incidents = read(*map(str, files))[0].incidents()
        hosts = [{kill.record["host"]["name"] for kill in incident.kills} for incident in incidents]
        assert sorted(map(str, hosts)) == [str({"node-1"}), str({"node-2"})]
        assert [len(incident.kills) for incident in incidents] == [3, 3]


@pytest.mark.parametrize("name", sorted(FILES))
def test_lines_of_an_incident(name: str, tmp_path: Path) -> None:
    """Each incident of a log has the lines of its own kills only."""
    path = tmp_path / "kern.log"
    path.write_bytes(WHOLE["journal json"](lines(FILES[name])))
    for incident in read(str(path))[0].incidents():
        killed = {int(found) for line in incident.lines for found in re.findall(r"Killed process (\d+) ", line)}
        assert killed == {kill.record["victim"]["tid"] for kill in incident.kills}


def test_neither(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """A file of another kind is an error with a hint; the others are reported."""
    other = tmp_path / "other"
    other.write_bytes(b"hello\nworld\n" * 100)
    good = written(tmp_path / "good", list(many(BASES, 2)))
    assert write_report([str(other), str(tmp_path / "none"), good], ReportOptions("md")) == EXIT_FAILED
    captured = capsysbinary.readouterr()
    assert re.fullmatch(rb"(oomtrace: [^\n]+\n){2}", captured.err)
    assert b"2 incidents" in captured.out
    assert write_report([str(tmp_path / "none")], ReportOptions("md")) == EXIT_FAILED
    assert capsysbinary.readouterr().out == b""


@pytest.mark.parametrize("count", [20, 200])
def test_damaged(count: int, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Everything before the damage is reported."""
    path = tmp_path / "oom.json.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(each) + "\n" for each in many(BASES, count)).encode())[:-4])
    assert write_report([str(path)], ReportOptions("md")) == EXIT_FAILED
    captured = capsysbinary.readouterr()
    assert f"{count} incidents".encode() in captured.out
    assert re.fullmatch(rb"oomtrace: [^\n]+ is damaged, and was read up to there[^\n]*\n", captured.err)


def test_damaged_log(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """The same applies to a short log."""
    path = tmp_path / "kern.log.gz"
    log = WHOLE["journal json"](list(lines(FILES["6.12-other"]))[-20:])
    path.write_bytes(gzip.compress(log)[:-4])
    assert write_report([str(path)], ReportOptions("md")) == EXIT_FAILED
    assert b"1 incident, 1 victim" in capsysbinary.readouterr().out


@pytest.mark.parametrize("what", ["text", "missing", "damaged", "cut", "pretty"])
def test_nothing_read_is_nothing_written(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An existing report is not overwritten with an empty one."""
    output, path = tmp_path / "keep.html", tmp_path / "file"
    output.write_text("good")
    (record,) = many(BASES, 1)
    data = json.dumps(record).encode() + b"\n"
    if what == "text":
        path.write_bytes(b"hello\nworld\n")
    elif what == "damaged":  # before anything that it says
        path.write_bytes(gzip.compress(data)[:12])
    elif what == "cut":
        path.write_bytes(gzip.compress(data + data, 0)[:200])
    elif what == "pretty":
        path.write_text(json.dumps(record, indent=4))
    assert write_report([str(path)], ReportOptions("html", str(output))) == EXIT_FAILED
    assert output.read_text() == "good"
    captured = capsys.readouterr()
    assert captured.out == ""
    said = {"missing": "cannot read", "damaged": "is damaged", "cut": "is damaged"}.get(what, "has neither records nor")
    assert re.fullmatch(rf"oomtrace: [^\n]*{said}[^\n]*\n", captured.err)


@pytest.mark.parametrize("form", ["dmesg", "rsyslog", "journal short", "journal json"])
def test_records_after_a_kernel_log(form: str, tmp_path: Path) -> None:
    """Both are reported; invalid records are counted."""
    log = {**WHOLE, **SPLIT}[form](lines(FILES["7.2-group"]))
    assert log.count(b"\n") > 64
    records = [json.dumps(record).encode() for record in many(BASES, 5)]
    path = tmp_path / "mixed"
    path.write_bytes(log + b"\n".join([*records, b'{"schema":1,"type":"oom_kill"}', records[0][:-5]]))
    collection, bad = read(str(path))
    assert (len(collection.incidents()), bad) == (6, [1])


def test_name_that_is_a_record(tmp_path: Path) -> None:
    """A newline and a record in a cgroup's name do not make a record in a log."""
    (record,) = many(BASES, 1)
    forged = b"/a\n" + json.dumps(record).encode() + b"\n"
    log = [line._replace(text=line.text.replace(b"/grp", forged)) for line in lines(FILES["7.2-group"])]
    assert any(forged in line.text for line in log)
    for form in ("dmesg", "journal short", "journal json"):
        path = tmp_path / form.replace(" ", "-")
        path.write_bytes(WHOLE[form](log))
        (incident,) = read(str(path))[0].incidents()
        assert {kill.record["source"] for kill in incident.kills} == {"kernel_log"}
        assert record["id"] not in {kill.record["id"] for kill in incident.kills}


@pytest.mark.parametrize("form", ["dmesg", "rsyslog", "journal json", "journal export"])
def test_log_in_two_files(form: str, tmp_path: Path) -> None:
    """An OOM report that rotation splits is complete, with the lines of both files."""
    log = list(lines(FILES["6.12-other"]))
    paths = [tmp_path / name for name in ("whole", "a", "b", "c")]
    parts_of = (log, log[:-1], log[-1:], [log[0]._replace(text=b"usb 1-1: new device")])
    for path, part in zip(paths, parts_of, strict=True):
        path.write_bytes({**WHOLE, **SPLIT}[form](part))
    whole, first, second, other = map(str, paths)
    expected = read(whole)[0].incidents()
    assert expected[0].kills[0].record["limit"] is not None
    assert read(first, second)[0].incidents() == expected
    assert read(first, second, other)[0].incidents() == expected
    assert read(other, first, second)[0].incidents() == expected
    assert read(second)[0].incidents() != expected


def test_this_boots_log(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """/dev/kmsg is read to its current end, and has the same kills as parse finds."""
    monkeypatch.setattr(this_boot, "Kmsg", lambda: kmsg_of(lines(FILES["7.2-group"])))
    found = list(kills.KillSearch().kills([kmsg.PATH]))
    assert [record["victim"]["tid"] for record in found] == [236, 233, 234]
    collection, bad = read(kmsg.PATH)
    ((incident,),) = [collection.incidents()]
    assert [kill.record["id"] for kill in incident.kills] == [record["id"] for record in found]
    assert bad == [0]
    for kill in incident.kills:
        assert kill.record["host"] == read_host()
        assert any(f"Killed process {kill.record['victim']['tid']} " in line for line in kill.lines)
    assert write_report([kmsg.PATH], ReportOptions("md")) == 0
    assert b"236" in capsysbinary.readouterr().out


@pytest.mark.parametrize(("form", "expected"), [("dmesg", "19.08 s after boot"), ("journal json", None)])
def test_undated(form: str, expected: str | None, tmp_path: Path) -> None:
    """The page's list shows the time since boot if the log has no dates."""
    (tmp_path / "log").write_bytes(WHOLE[form](lines(FILES["7.2-group"])))
    (found,) = re.findall(
        r'<script type="application/json" id="index">(.*?)</script>',
        render_page(read(str(tmp_path / "log"))[0].incidents(), []),
    )
    index = json.loads(found)
    (row,) = (dict(zip(index["columns"], each, strict=True)) for each in index["rows"])
    assert (row["time"] is None, row["sinceBoot"]) == (expected is not None, expected)


def test_byte_order_mark(tmp_path: Path) -> None:
    """A byte order mark hides neither the first record nor the first line of a log."""
    (record,) = many(BASES, 1)
    (tmp_path / "oom.json").write_bytes(codecs.BOM_UTF8 + json.dumps(record).encode())
    (tmp_path / "dmesg").write_bytes(codecs.BOM_UTF8 + WHOLE["dmesg"](lines(FILES["7.2-group"])))
    collection, bad = read(str(tmp_path / "oom.json"))
    assert (len(collection.incidents()), bad) == (1, [0])
    for incident in read(str(tmp_path / "dmesg"))[0].incidents():
        assert incident.kills[0].record["trigger"] is not None
        assert "invoked oom-killer" in incident.lines[0]


def test_standard_output_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed standard output is an error, in both formats."""
    good = written(tmp_path / "good", list(many(BASES, 2)))
    monkeypatch.setattr(make.sys, "stdout", None)  # type: ignore[attr-defined]
    for form in ("html", "md"):
        with pytest.raises(TracerError, match="no standard output"):
            write_report([good], ReportOptions(form))
    assert write_report([good], ReportOptions("md", str(tmp_path / "report.md"))) == 0


def test_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is not world-readable; a page is not written to a terminal."""
    good = written(tmp_path / "good", list(many(BASES, 2)))
    output = tmp_path / "report.html"
    assert write_report([good], ReportOptions("html", str(output))) == 0
    assert output.stat().st_mode & 0o007 == 0
    with pytest.raises(TracerError) as raised:
        write_report([good], ReportOptions("html", str(tmp_path / "no" / "folder")))
    assert raised.value.exit_code == EXIT_FAILED
    monkeypatch.setattr(make.sys.stdout, "isatty", lambda: True)  # type: ignore[attr-defined]
    with pytest.raises(TracerError) as raised:
        write_report([good], ReportOptions("html"))
    assert raised.value.exit_code == EXIT_USAGE


def test_losses_are_told(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Kills that lost and gap records count as missing are in the report."""
    base = {name: BASES[0][name] for name in ("schema", "time", "seq", "host")}
    lost = {**base, "type": "lost", "stage": "ring_buffer", "count": 3, "since": "2026-11-01T00:00:00.000000000Z"}
    gap = {**base, "type": "gap", "since": None, "oom_kills": 9, "records": 5, "missing": 4, "cgroups": []}
    assert write_report([written(tmp_path / "oom.json", [lost, gap])], ReportOptions("md")) == 0
    captured = capsysbinary.readouterr()
    assert b"0 incidents, 0 victims." in captured.out
    assert b"(lost, gap): 7" in captured.out


def hostile_records() -> list[dict[str, Any]]:
    """A hostile name in every field that a container can choose."""
    made = []
    for number, name in enumerate(HOSTILE):
        (record,) = many([BASES[0]], 1)
        record["id"] = record["incident"]["id"] = f"hostile-{number}"
        record["victim"].update(comm=name, cmdline=[name, name], exe=name, cgroup=f"/{name}")
        record["trigger"] = {"pid": 1, "tid": 1, "comm": name, "uid": 0, "cgroup": name}
        record["container"] = {
            "id": name,
            "runtime": name,
            "name": name,
            "image": name,
            "labels": {name: name},
            "node_container_id": None,
            "ip_addresses": None,
        }
        record["host"]["name"] = name
        record["candidates"] = [{"pid": 1, "comm": name, "points": 1, "rss_bytes": 1, "oom_score_adj": 0}]
        record["limit"] = {
            **dict.fromkeys(BASES[0]["limit"] or {"usage_bytes": 0}, None),
            "cgroup": name,
            "level": "container",
            "usage_bytes": 1,
            "limit_bytes": 4096,
            "breakdown": None,
        }
        made.append(record)
    return made


def test_markdown_is_safe(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """GitHub's renderer makes no link, image, HTML or extra cell of any name, and shows it completely."""
    names = [*HOSTILE, "@everybody #1 https://hacked.example", "``` \n# x", "`", "\\", "| a | b |", "a`b``c|d"]
    records = hostile_records()
    for number, name in enumerate(names[len(HOSTILE) :]):
        record = copy.deepcopy(records[0])
        record["id"] = record["incident"]["id"] = f"more-{number}"
        record["victim"].update(comm=name, cmdline=[name])
        record["container"].update(name=name, image=name)
        record["candidates"][0]["comm"] = name
        records.append(record)
    assert write_report([written(tmp_path / "oom.json", records)], ReportOptions("md", last=100)) == 0
    text = capsysbinary.readouterr().out.decode()
    rendered = cmarkgfm.github_flavored_markdown_to_html(text, Options.CMARK_OPT_UNSAFE)
    outside = re.sub(r"<(code|pre)\b.*?</\1>", "", rendered, flags=re.DOTALL)
    assert not re.search(r"<(a|img|script|b|br)\b|hacked|@everybody", outside)
    assert set(re.findall(r"<(\w+)", outside)) <= {
        "h1",
        "h2",
        "p",
        "ul",
        "li",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    for row in re.findall(r"<tr>(.*?)</tr>", rendered, flags=re.DOTALL):
        assert len(re.findall(r"<t[hd]\b", row)) in (5, 6)
    shown = {html.unescape(found) for found in re.findall(r"<code>(.*?)</code>", rendered, flags=re.DOTALL)}
    for name in names:
        if len(name) < 500:
            assert printable(name) in {each.strip(" ") for each in shown} | shown


@pytest.mark.parametrize("text", ["", "`", "``", " `a` ", "a|b", "\n", "x" * 9999])
def test_code_span(text: str) -> None:
    """One line that is a code span."""
    rendered = cmarkgfm.github_flavored_markdown_to_html(code(text) + " end").strip()
    assert re.fullmatch(r"<p><code>[^\n]*</code> end</p>", rendered)


def test_parts_count_each_byte_once() -> None:
    """The parts of the memory add up to at most the usage, and include all known counters."""
    limits = [record["limit"] for record in BASES if record["limit"] and record["limit"]["breakdown"]]
    assert len(limits) > 20
    for limit in limits:
        found = memory_parts(limit)
        breakdown = limit["breakdown"]
        told = {part.name: part.size_bytes for part in found}
        assert told.get("anon", 0) == breakdown["anon_bytes"]
        assert told.get("shmem", 0) + told.get("file", 0) == breakdown["file_bytes"]
        assert sum(told.values()) >= limit["usage_bytes"]
        assert sum(told.values()) <= limit["usage_bytes"] * 1.02 + (4 << 20), "statistics lag behind by a little"
    assert memory_parts(None) == []


def test_workloads_are_found(tmp_path: Path) -> None:
    """Of 3,000 incidents, each container has the pattern that it was generated with."""
    incidents = read(written(tmp_path / "oom.json", list(many(BASES, 3000))))[0].incidents()
    found = workloads(incidents)
    assert sum(workload.victims for workload in found) == sum(len(incident.kills) for incident in incidents)
    verdicts: dict[str, set[str]] = {"leaks": set(), "bursts": set()}
    for workload in found:
        record = workload.incidents[0].kills[0].record
        container = record["container"]
        if container is None:
            continue
        number = int(container["id"], 16)
        if number < 40:
            verdicts["leaks" if number < 20 else "bursts"].add(workload.regularity.pattern)
    assert verdicts == {"leaks": {"saw-tooth"}, "bursts": {"burst"}}


def test_lowered_limit(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """A process that lowered a limit did not request memory; a log without dates has the time since boot."""
    log = str((DATA / "kernel_logs") / "7.2-shrink.txt")
    assert write_report([log], ReportOptions("md")) == 0
    said = capsysbinary.readouterr().out.decode()
    assert "\n## 73.56 s after boot\n" in said
    assert "was lowered to 20 MiB while 50 MiB were in use" in said
    assert "requested by" not in said
    assert "\n- lowered by" not in said, "the log does not say"
    (record,) = [copy.deepcopy(each) for each in BASES if each["victim"]["comm"] == "hog-shrunk"]
    record["trigger"]["cgroup"] = "/system.slice/ssh.service"
    assert write_report([written(tmp_path / "oom.json", [record])], ReportOptions("md")) == 0
    assert f"\n- lowered by: `sh (thread {record['trigger']['tid']})`\n" in capsysbinary.readouterr().out.decode()


def test_victims_of_a_workload(tmp_path: Path) -> None:
    """An incident with victims in two cgroups counts for both workloads."""
    records = list(many([BASES[0]], 2))
    for record, cgroup in zip(records, ("/gt", "/gt/b"), strict=True):
        record.update(container=None, kubernetes=None, systemd=None)
        record["victim"]["cgroup"] = cgroup
        record["host"]["name"], record["incident"]["id"] = "node-1", "one"
    incidents = read(written(tmp_path / "oom.json", records))[0].incidents()
    found = workloads(incidents)
    assert [(each.name, each.victims, each.incidents) for each in found] == [
        ("/gt", 1, incidents),
        ("/gt/b", 1, incidents),
    ]


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "?"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (41_943_040, "40.0 MiB"), (1 << 50, "1024.0 TiB")],
)
def test_size(size: int | None, text: str) -> None:
    assert size_text(size) == text
