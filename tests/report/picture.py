# SPDX-License-Identifier: Apache-2.0
"""``make picture``: docs/images/report.png, the report's page in Chromium.

The page is made by ``oomtrace report`` from the real kernel logs in tests/data/kernel_logs and the real record in
docs/record.md.  These logs have no dates: each gets a boot time, so that the timeline is not empty.
"""

import base64
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.harness.environment import ROOT
from tests.harness.kernel_log_files import FOLDER
from tests.harness.records import shown

from .browser import Browser

PICTURE = ROOT / "docs" / "images" / "report.png"
WIDTH, HEIGHT = 1240, 1130
COLOURS = 24
LARGEST_BYTES = 60_000
LEFT_OUT = ("storm", "nokill", "odd")
"""Logs left out: 40 kills at once, which dwarf other bars of the timeline; no kill; hostile names."""
CHOOSE = """
const rows = [...document.querySelectorAll("#list .row")].filter((row) => !row.hidden);
if (rows.length !== 1) return false;
rows[0].click();
[...document.querySelectorAll("#filters button")].find((button) => button.textContent === "Clear filters").click();
document.getElementById("timeline").scrollIntoView();
scrollBy(0, -8);
return true;
"""


def oomtrace(*arguments: str) -> str:
    command = [sys.executable, "-m", "tracer", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, timeout=120, stdout=subprocess.PIPE, text=True).stdout


def records() -> str:
    """Records of each log, its boot half a day after that of the previous one."""
    logs = [log for log in sorted(FOLDER.glob("*.txt")) if not any(name in log.stem for name in LEFT_OUT)]
    found = []
    for half_days, log in enumerate(logs):
        booted = f"2026-11-{13 + half_days // 2} {3 + half_days % 2 * 12:02}:00:00"
        found.append(oomtrace("parse", "--boot-time", booted, "--timezone", "UTC", str(log)))
    return "".join([*found, json.dumps(shown()), "\n"])


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "oom.json").write_text(records())
        oomtrace("report", str(folder / "oom.json"), "-o", str(folder / "report.html"))
        browser = Browser(folder / "profile")
        try:
            browser.cdp("Emulation.setScrollbarsHidden", hidden=True)
            browser.show(folder / "report.html", WIDTH, HEIGHT, prefers_color_scheme="light")
            browser.find("#text").send_keys("shop-cart-1")
            browser.wait_for("the record of docs/record.md", CHOOSE)
            browser.wait_js("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
            shot = browser.cdp("Page.captureScreenshot", format="png")["data"]
        finally:
            browser.close()
    picture = Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB")
    picture = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    PICTURE.parent.mkdir(exist_ok=True)
    picture.save(PICTURE, optimize=True)
    size = PICTURE.stat().st_size
    print(f"{PICTURE.relative_to(ROOT)}: {size} bytes")
    return 0 if size < LARGEST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
