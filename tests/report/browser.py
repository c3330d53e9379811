# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, controlled with chromedriver."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.harness.environment import ROOT, attempts, require

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
AXE = ROOT / "build" / "axe"
FLAGS = (
    "--headless",
    "--no-sandbox",  # needed by root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
READY_S = 60.0


def axe() -> str:
    """axe-core's source, fetched once."""
    source = AXE / "node_modules" / "axe-core" / "axe.min.js"
    if not source.exists():
        AXE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--no-save", "--prefix", str(AXE), "axe-core@4"]
        try:
            subprocess.run(command, check=True, timeout=180, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError) as error:
            require(False, f"axe-core: {error}")
    return source.read_text()


class Browser:
    """A browser with one window."""

    def __init__(self, profile: Path) -> None:
        require(CHROMIUM.exists() and DRIVER.exists(), "chromium and chromium-driver")
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER), log_output=os.devnull))
        self.driver.set_script_timeout(READY_S)
        self.cdp("Performance.enable", timeDomain="threadTicks")

    def close(self) -> None:
        self.driver.quit()

    def show(self, page: Path, width: int = 1400, height: int = 1000, **media: str) -> float:
        """Open a page in a window of this size; seconds until it is usable.

        ``media`` are features (`prefers_color_scheme="dark"`).
        """
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.cdp("Emulation.setEmulatedMedia", features=features)
        self.logged("browser")
        self.logged("performance")
        self.driver.get(page.as_uri())
        for _ in attempts(READY_S, 0.05):
            ready = self.js("return document.documentElement.dataset.ready")
            if ready is not None:
                return float(ready) / 1000
        pytest.fail(f"the page is not ready; console: {self.logged('browser')}")

    def cdp(self, command: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)

    def js(self, script: str, *arguments: object) -> Any:
        """Run a function body; its result."""
        return self.driver.execute_script(script, *arguments)

    def wait_js(self, script: str, *arguments: object) -> Any:
        """Run an asynchronous function body; what it passes to its last argument, a callback."""
        return self.driver.execute_async_script(script, *arguments)

    def logged(self, kind: str) -> list[Any]:
        """New console messages or DevTools events since the last call."""
        entries = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return [json.loads(entry["message"])["message"] if kind == "performance" else entry for entry in entries]

    def cpu_s(self) -> float:
        """CPU time of the page's thread so far."""
        metrics = self.cdp("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    def requests(self) -> list[str]:
        """URLs of the page's requests."""
        events = self.logged("performance")
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def keys(self, *keys: str, shift: bool = False) -> None:
        """Press keys, one after the other, in the focused element."""
        actions = ActionChains(self.driver)
        if shift:
            actions.key_down(Keys.SHIFT)
        for key in keys:
            actions.send_keys(key)
        if shift:
            actions.key_up(Keys.SHIFT)
        actions.perform()

    def focused(self) -> str:
        """Id of the focused element."""
        return str(self.js("return document.activeElement.id"))

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Text of an element, hidden or not."""
        return str(self.js("return document.querySelector(arguments[0]).textContent", selector))

    def wait_for(self, what: str, script: str, seconds: float = 10.0) -> Any:
        """Wait until a function body returns a true value."""
        end = time.monotonic() + seconds
        while not (found := self.js(script)):
            assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
            time.sleep(0.02)
        return found

    def violations(self) -> list[str]:
        """Violations of WCAG 2.2 AA and best practices found by axe-core."""
        # The page's CSP allows no other script; DevTools can run this one.
        self.cdp("Runtime.evaluate", expression=axe())
        run = "axe.run(document).then(found => JSON.stringify(found.violations))"
        result = self.cdp("Runtime.evaluate", expression=run, awaitPromise=True)
        found = json.loads(result["result"]["value"])
        return [
            f"{each['id']}: {node['html'][:200]} {node['failureSummary']}" for each in found for node in each["nodes"]
        ]
