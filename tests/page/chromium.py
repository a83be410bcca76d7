"""Debian's Chromium, as the tests of the page have it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from fakes.collector import has
from fakes.process import program
from fakes.waiting import until

SCREENSHOTS = Path(__file__).parents[2] / "work/screenshots"


@contextlib.contextmanager
def chromium(scheme: str = "light", *, size: tuple[int, int] = (1280, 900)) -> Iterator[Chrome]:
    """A browser whose user prefers the colours `scheme`; the test is skipped where it is not installed."""
    if not has("chromium") or not has("chromedriver"):
        pytest.skip("chromium and chromium-driver are not installed (tests/prepare browser)")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    options = ChromeOptions()
    options.binary_location = program("chromium")
    window = f"window-size={size[0]},{size[1]}"
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", window):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options=options, service=Service(program("chromedriver"))) as driver:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        yield driver


def find(browser: Chrome, css: str) -> Any:  # noqa: ANN401  selenium's element
    """The first element that matches."""
    return browser.find_element(By.CSS_SELECTOR, css)


def text(browser: Chrome, css: str) -> str:
    """What the first element that matches says; empty if there is none.

    Read at once: the page may replace an element between finding it and reading it.
    """
    script = "return document.querySelector(arguments[0])?.innerText ?? ''"
    return browser.execute_script(script, css)  # type: ignore[no-any-return]


def opened(browser: Chrome, url: str) -> None:
    """Open a page of the collector, and wait until it is live."""
    browser.get(url)
    until(lambda: text(browser, "#connection") == "Live")


def screenshot(browser: Chrome, name: str) -> None:
    """Keep a picture of the whole page, however long it is."""
    height = browser.execute_script("return document.documentElement.scrollHeight")
    width = browser.execute_script("return window.innerWidth")
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.save_screenshot(str(SCREENSHOTS / name))
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
