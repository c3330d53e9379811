# SPDX-License-Identifier: Apache-2.0
"""The page in a browser: self-contained, fast with 10,000 incidents, and accessible."""

import copy
import select
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.harness import DATA
from tests.harness.environment import TIMEOUT_SCALE
from tests.harness.kernel_log_files import reports
from tests.unit.report.test_report import hostile_records
from tracer.logs.log_line import LogLine
from tracer.records.summary import describe_kill
from tracer.records.unix_time import unix_seconds
from tracer.report.victim_names import victim_names

from .browser import Browser
from .conftest import MakePage, run_report
from .samples import HOSTILE, Record, many

INTERACTIVE_CPU_S = TIMEOUT_SCALE * 3.0
"""CPU time of the page's thread until 10,000 incidents are usable; wall time depends on the machine."""
FRAME_CPU_MS = TIMEOUT_SCALE * 16.0
"""CPU time per frame while scrolling 18,000 pixels per second at 60 frames per second."""
STEADY_PX = 300
INTERACTIVE_S = TIMEOUT_SCALE * 15.0
FRAME_MS = TIMEOUT_SCALE * 250.0
"""Wall time for all but one of twenty frames, on shared cores."""
MOST_ROWS = 60

SHOWN = "return Number(document.getElementById('incidents-title').textContent.replace(/\\D/g, ''))"
SCROLL = """
const done = arguments[1], by = arguments[0], list = document.getElementById("list"), frames = [], seen = new Set();
let step = 0, before = performance.now(), most = 0, empty = 0;
list.scrollTop = 0;
requestAnimationFrame(function frame(now) {
    frames.push(now - before);
    before = now;
    const rows = [...list.querySelectorAll(".row")].filter((row) => !row.hidden);
    most = Math.max(most, list.querySelectorAll("*").length);
    for (const row of rows) seen.add(row.getAttribute("aria-posinset"));
    const box = list.getBoundingClientRect(), hit = document.elementFromPoint(box.x + 50, box.y + box.height / 2);
    if (!hit.closest(".row")) empty++;
    list.scrollTop = ++step * (by || (list.scrollHeight - list.clientHeight) / 120);
    if (step <= 120) requestAnimationFrame(frame);
    else done({ frames: frames.slice(1), most, empty, seen: seen.size, top: list.scrollTop });
});
"""


def shown(browser: Browser) -> int:
    return int(browser.js(SHOWN))


def search(browser: Browser, text: str, expected: int) -> None:
    browser.find("#text").clear()
    browser.find("#text").send_keys(text)
    browser.wait_for(f"{expected} incidents", f"{SHOWN.replace('return ', 'return (')}) === {expected}")


def test_alone(browser: Browser, many_page: Path) -> None:
    """The page makes no requests, logs nothing to the console, and its CSP blocks network access."""
    browser.show(many_page)
    browser.wait_js("setTimeout(arguments[0], 500)")
    assert {url for url in browser.requests() if not url.startswith("data:")} == {many_page.as_uri()}
    assert browser.logged("browser") == []
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    refused = browser.wait_js(
        "const done = arguments[0], seen = []; let told = 0;"
        "document.addEventListener('securitypolicyviolation', (event) => seen.push(event.effectiveDirective));"
        f"const image = new Image(); image.onerror = () => told++; image.src = 'http://127.0.0.1:{port}/x.png';"
        f"fetch('http://127.0.0.1:{port}/').catch(() => told++);"
        "setTimeout(() => done([seen.sort(), told]), 500);"
    )
    assert refused == [["connect-src", "img-src"], 2]
    assert not select.select([listener], [], [], 0)[0], "a connection to the listener"
    listener.close()
    for attack in (
        "document.body.innerHTML = '<b>x</b>'",
        "const made = document.createElement('script'); made.text = 'window.hacked = 1'; document.body.append(made)",
        "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
    ):
        assert browser.js(f"try {{ {attack} }} catch (error) {{ return error.name }}") == "TypeError"
    assert browser.js("return window.hacked") is None
    browser.logged("browser")


def test_quick(browser: Browser, many_page: Path) -> None:
    """10,000 incidents are usable within seconds and scroll smoothly, with few rows in the document."""
    before_s = browser.cpu_s()
    assert browser.show(many_page) <= INTERACTIVE_S
    assert browser.cpu_s() - before_s <= INTERACTIVE_CPU_S
    assert shown(browser) == 10_000
    found = browser.wait_js(SCROLL, 0)
    assert found["empty"] == 0, "frames without rows"
    assert found["seen"] > 1000
    assert found["most"] <= 5 * MOST_ROWS + 1
    before_s = browser.cpu_s()
    frames = sorted(browser.wait_js(SCROLL, STEADY_PX)["frames"])
    assert 1000 * (browser.cpu_s() - before_s) / len(frames) <= FRAME_CPU_MS
    assert frames[len(frames) * 19 // 20] <= FRAME_MS, frames
    took = browser.wait_js(
        "const done = arguments[0], text = document.getElementById('text'), from = performance.now();"
        "text.value = 'hog'; text.dispatchEvent(new Event('input'));"
        "new MutationObserver(() => done(performance.now() - from)).observe("
        "document.getElementById('shown'), { childList: true, characterData: true, subtree: true });"
    )
    assert took <= 1000, "of which it waits 120 ms for the next key"


def test_counts(browser: Browser, many_page: Path, many_records: list[Record]) -> None:
    """Victims by container, image and node, and filtered incidents, equal those of the records."""
    browser.show(many_page)
    for place, facet in enumerate(("container", "image", "node")):
        expected = Counter(getattr(victim_names(record), facet) for record in many_records)  # type: ignore[arg-type]
        script = "return [...document.querySelectorAll('#rankings > div')[arguments[0]].querySelectorAll('button')]"
        rows = browser.js(
            script + ".map((button) => [...button.querySelectorAll('span')].map((span) => span.textContent))", place
        )
        assert [int(row[1].replace(",", "")) for row in rows] == sorted(expected.values(), reverse=True)[: len(rows)]
        for name, victims in rows:
            assert int(victims.replace(",", "")) == expected[None if name.startswith("(") else name]
    name = "node-3"
    browser.js(
        "document.querySelectorAll('#rankings > div')[2].querySelectorAll('button').forEach((button) => {"
        " if (button.textContent.startsWith('node-3')) button.click(); })"
    )
    assert shown(browser) == sum(record["host"]["name"] == name for record in many_records)
    comm = "hog-bystander1"
    expected_number = sum(
        record["victim"]["comm"] == comm and record["host"]["name"] == name for record in many_records
    )
    asked = sum(comm in str(record["trigger"]) and record["host"]["name"] == name for record in many_records)
    assert asked == 0
    search(browser, comm, expected_number)
    browser.find("#clear").click()
    assert shown(browser) == len(many_records)
    bars = browser.js(
        "document.getElementById('chart-table').open = true; return new Promise((done) => setTimeout(() => done("
        "[...document.querySelectorAll('#chart-table tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))), 100))"
    )
    assert sum(int(row[2].replace(",", "")) for row in bars) == len(many_records)
    first = unix_seconds(f"{bars[0][0].replace(' ', 'T')}Z"), unix_seconds(f"{bars[0][1].replace(' ', 'T')}Z")
    inside = [record for record in many_records if first[0] <= unix_seconds(record["time"]) < first[1]]  # type: ignore[operator]
    assert int(bars[0][2]) == len(inside)


def test_keyboard(browser: Browser, many_page: Path, many_records: list[Record]) -> None:
    """Everything works with the keyboard, with a visible focus."""
    browser.show(many_page)
    browser.keys(Keys.TAB)
    assert browser.js("return document.activeElement.className") == "skip"
    assert browser.js("return document.activeElement.getBoundingClientRect().left") >= 0
    browser.keys(Keys.ENTER)
    reached = []
    for _ in range(40):
        browser.keys(Keys.TAB)
        reached.append(browser.js("return document.activeElement.id || document.activeElement.tagName"))
        outline = browser.js("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or reached[-1] == "BODY", reached[-1]
    browser.js("document.getElementById('list').focus()")
    newest = sorted(many_records, key=lambda record: record["time"])[::-1]
    for key, place in ((Keys.ARROW_DOWN, 1), (Keys.END, 9999), (Keys.ARROW_UP, 9998), (Keys.HOME, 0)):
        browser.keys(key)
        active = browser.js(
            "return document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))"
            ".getAttribute('aria-posinset')"
        )
        assert int(active) == place + 1
        assert browser.text("#incident-title") == describe_kill(newest[place])  # type: ignore[arg-type]
    browser.keys(Keys.PAGE_DOWN, Keys.ENTER)
    assert browser.focused() == "incident-title"
    browser.keys(Keys.ESCAPE)
    assert browser.focused() == "list"
    browser.keys("/")
    assert browser.focused() == "text"
    browser.js("document.getElementById('chart').focus()")
    browser.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    said = browser.text("#chart-said")
    assert said.startswith("2026-11-01 ")
    browser.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, shift=True)
    total = int(browser.text("#chart-said").rpartition(": ")[2].split()[0].replace(",", ""))
    browser.keys(Keys.ENTER)
    assert 0 < shown(browser) == total < 10_000
    browser.keys("-")
    assert shown(browser) > total
    browser.keys(Keys.ESCAPE)
    assert shown(browser) == 10_000


def test_brush(browser: Browser, many_page: Path) -> None:
    """Dragging over the chart zooms to the selected range."""
    browser.show(many_page)
    chart = browser.find("#chart")
    actions = ActionChains(browser.driver).move_to_element_with_offset(chart, -100, 0).click_and_hold()
    actions.move_by_offset(150, 0).release().perform()
    few = shown(browser)
    assert 0 < few < 5000
    browser.find("#zoom-out").click()
    assert few < shown(browser) < 10_000
    browser.find("#zoom-all").click()
    assert shown(browser) == 10_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_accessible(browser: Browser, make_page: MakePage, bases: list[Record], scheme: str, width: int) -> None:
    """axe-core finds no violations: in a full incident, with all details open, and without results."""
    page = make_page([*many(bases, 60), *bases])
    browser.show(page, width, prefers_color_scheme=scheme)
    search(browser, "hog-main", shown_by(browser, "hog-main"))
    assert browser.js("return document.querySelectorAll('.candidates tr').length") > 1
    browser.js("for (const details of document.querySelectorAll('details')) details.open = true")
    browser.wait_js("setTimeout(arguments[0], 200)")
    assert browser.violations() == []
    assert browser.js("return document.documentElement.scrollWidth") <= width, "horizontal overflow"
    search(browser, "nothing has this name", 0)
    assert browser.violations() == []
    paper = browser.js("return getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) > 384) == (scheme == "light")


def shown_by(browser: Browser, text: str) -> int:
    """Number of rows of the index with this text."""
    return int(
        browser.js(
            "const index = JSON.parse(document.getElementById('index').textContent);"
            "const text = index.columns.indexOf('text');"
            "return index.rows.filter((row) => row[text].includes(arguments[0])).length",
            text,
        )
    )


def test_reduced_motion(browser: Browser, make_page: MakePage, bases: list[Record]) -> None:
    """No animations with prefers-reduced-motion."""
    page = make_page(many(bases, 5))
    moving = (
        "return [...document.querySelectorAll('*')]"
        ".some((each) => parseFloat(getComputedStyle(each).transitionDuration) > 0)"
    )
    browser.show(page, prefers_reduced_motion="no-preference")
    assert browser.js(moving)
    browser.show(page, prefers_reduced_motion="reduce")
    assert not browser.js(moving)


def test_hostile_names(browser: Browser, make_page: MakePage) -> None:
    """Hostile names are text: they do not run, become elements, or hide."""
    records = hostile_records()
    browser.show(make_page(records))
    assert shown(browser) == len(HOSTILE)
    elements = "return [...new Set([...document.body.querySelectorAll('*')].map((each) => each.tagName))].sort()"
    for number in range(len(HOSTILE)):
        browser.js("document.getElementById('list').focus()")
        browser.keys(Keys.HOME, *[Keys.ARROW_DOWN] * number)
        browser.js("for (const details of document.querySelectorAll('details')) details.open = true")
        browser.wait_js("setTimeout(arguments[0], 50)")
        assert not {"IMG", "IFRAME", "OBJECT", "LINK"} & set(browser.js(elements))
    assert browser.js("return window.hacked") is None
    assert browser.js("return document.querySelectorAll('script').length") == 3
    text = browser.js(
        "return [...document.querySelectorAll('#pattern-table td:first-child')].map((cell) => cell.textContent)"
    )
    page_text = " ".join(text)
    for name in HOSTILE:
        if name.isprintable():
            assert name[-100:] in page_text, "the end of a long name"
    invisible = "return /[\\u202e\\u2028\\u2029\\u001b\\u0007]/.test(document.querySelector('main').innerText)"
    assert browser.js(invisible) is False
    assert browser.logged("browser") == []


def test_as_the_kernel_log(browser: Browser, make_page: MakePage, bases: list[Record]) -> None:
    """The kernel log lines that the page makes from a record are parsed back to the same values."""
    records = [record for record in bases if record["victim"]["comm"] and record["victim"]["total_vm_bytes"]]
    records = [
        record for record in records if record["victim"]["comm"].isascii() and record["victim"]["comm"].isprintable()
    ]
    browser.show(make_page(records))
    texts = browser.js(
        "const list = document.getElementById('list'), found = [];"
        "for (let at = 0; at < arguments[0]; at++) {"
        " list.dispatchEvent(new KeyboardEvent('keydown', { key: at ? 'ArrowDown' : 'Home' }));"
        " const details = [...document.querySelectorAll('#incident-body details')][0]; details.open = true;"
        " details.dispatchEvent(new Event('toggle')); found.push(details.querySelector('pre').textContent); }"
        "return found",
        shown(browser),
    )
    read: dict[tuple[Any, ...], Any] = {}
    for text in texts:
        for found in reports(LogLine(line.encode(), number) for number, line in enumerate(text.split("\n"))):
            key = (found.tid, found.comm.decode(), found.total_vm_bytes, found.anon_rss_bytes, found.file_rss_bytes)
            read[key] = found
    assert len(texts) > 50
    for record in records:
        victim, incident = record["victim"], record["incident"]
        found = read[
            tuple(victim[name] for name in ("tid", "comm", "total_vm_bytes", "anon_rss_bytes", "file_rss_bytes"))
        ]
        assert found.oom_score_adj == victim["oom_score_adj"] or victim["oom_score_adj"] is None
        if found.message is not None:
            assert found.message.decode() == incident["message"]


def test_nothing_to_show(browser: Browser, make_page: MakePage) -> None:
    """The page works without incidents, and for incidents without a time."""
    browser.show(make_page([]))
    assert browser.text("#summary") == "0 incidents, 0 victims, 0 nodes"
    assert browser.violations() == []
    assert browser.logged("browser") == []


def test_without_time(browser: Browser, make_page: MakePage, bases: list[Record]) -> None:
    """Incidents without a time are listed, with a note that time ranges exclude them."""
    browser.show(make_page({**record, "time": None} for record in bases))
    assert shown(browser) > 50
    assert "without a time" in browser.text("#notes")
    browser.js("document.getElementById('list').focus()")
    browser.keys(Keys.END)
    assert browser.logged("browser") == []


def test_lowered_limit(browser: Browser, make_page: MakePage, bases: list[Record]) -> None:
    """The process that lowered a limit is not shown as the trigger; without dates, times are since boot."""
    (record,) = [record for record in bases if record["victim"]["comm"] == "hog-shrunk"]
    record = copy.deepcopy(record)
    record["time"], record["id"] = None, "0-k40b3e5c-760"
    browser.show(make_page([record]))
    facts = browser.text("#incident-body dl")
    assert "was lowered to 20 MiB while 50 MiB were in use" in browser.text("#incident-title")
    assert "67.85 s after boot" in facts
    assert "Requested by" not in facts
    assert "Limit lowered by" not in facts, "not in the log"
    record["trigger"]["cgroup"] = "/system.slice/ssh.service"
    browser.show(make_page([record]))
    assert "Limit lowered bysh" in browser.text("#incident-body dl")


def test_exact_numbers(browser: Browser, make_page: MakePage, bases: list[Record]) -> None:
    """Integers beyond JavaScript's precision are unchanged in the JSON."""
    (record,) = many([next(record for record in bases if record["limit"])], 1)
    record["limit"]["swap_limit_bytes"] = 9223372036854771712
    browser.show(make_page([record]))
    shown_json = browser.js(
        "const details = [...document.querySelectorAll('#incident-body details')].pop(); details.open = true;"
        "details.dispatchEvent(new Event('toggle')); return details.querySelector('pre').textContent"
    )
    assert '"swap_limit_bytes": 9223372036854771712,' in shown_json


def test_kernel_log_beside(browser: Browser, tmp_path: Path) -> None:
    """A kernel log alone makes a page, with its lines."""
    log = DATA / "kernel_logs" / "7.2-group.txt"
    browser.show(run_report(log, output=tmp_path / "report.html"))
    assert browser.text("#summary").startswith("1 incident, 3 victims")
    assert "Killed process 233 (hog-bystander1)" in browser.text("#incident-body pre")
    assert "2 further victims" in browser.text("#incident-body")
    assert browser.js("return document.querySelectorAll('.candidates tbody .killed').length") == 3
