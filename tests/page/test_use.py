"""The page with 5,000 nodes: in a browser, by keyboard alone, and on paper."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from fakes.collector import Collector, collector, report
from fakes.waiting import until
from page.chromium import SCREENSHOTS, chromium, find, opened, text
from pxe_pack.collector import document
from pxe_pack.collector.database import connect
from pxe_pack.collector.entries import Received
from pxe_pack.collector.record import record

NODES = 5000
A4 = (718, 1016)  # pixels within Chromium's margins of 1 cm, at 96 a inch
PROMPTLY = 15  # seconds on a very busy machine; one is usual


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that has the reports of 5,000 nodes, one in a hundred of which have failed."""
    folder = tmp_path_factory.mktemp("many")
    engine = connect(f"sqlite:///{folder}/nodes.db")
    for start in range(0, NODES, 250):
        documents = [report(one, phase="done" if one % 100 else "failed") for one in range(start, start + 250)]
        reports = [document.read(json.dumps(one).encode()) for one in documents]
        record(engine, [Received(report=one, address="10.0.0.9", layout="", time=time.time()) for one in reports])
    engine.dispose()
    with collector(folder) as collecting:
        yield collecting


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium("dark") as driver:
        yield driver


def press(browser: Chrome, *keys: str) -> None:
    """Press one key after the other."""
    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def focused(browser: Chrome) -> str:
    """The id of what has the focus, else its text."""
    element = browser.switch_to.active_element
    style = browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", element)
    assert style != "none", "nobody sees where the focus is"
    return element.get_attribute("id") or element.text


def cells(browser: Chrome) -> int:
    number: int = browser.execute_script("return document.querySelectorAll('#grid a').length")
    return number


def test_grid_of_5000_nodes_is_filtered_and_follows_changes_promptly(browser: Chrome, many: Collector) -> None:
    opened(browser, f"{many.url}/?view=grid")
    until(lambda: cells(browser) == NODES, within=2 * PROMPTLY)
    find(browser, "#states .failed").click()
    until(lambda: cells(browser) == NODES // 100, within=PROMPTLY)
    find(browser, "#states .failed").click()
    until(lambda: cells(browser) == NODES, within=PROMPTLY)
    find(browser, "#search").send_keys("node4321")
    until(lambda: cells(browser) == 1, within=PROMPTLY)
    assert find(browser, "#grid a").get_attribute("class") == "cell done"
    many.post(report(4321, phase="failed"))
    until(
        lambda: browser.execute_script("return document.querySelector('#grid a').className") == "cell failed",
        within=PROMPTLY,
    )
    find(browser, "#search").send_keys(Keys.CONTROL, "a", Keys.DELETE)
    until(lambda: cells(browser) == NODES, within=PROMPTLY)
    browser.save_screenshot(str(SCREENSHOTS / "grid-5000.png"))


def test_table_of_5000_nodes_is_sorted_and_paged_promptly(browser: Chrome, many: Collector) -> None:
    opened(browser, f"{many.url}/?sort=name&page=50")
    until(lambda: text(browser, "#page") == "Page 50 of 50", within=PROMPTLY)
    find(browser, "#previous").click()
    until(lambda: text(browser, "#page") == "Page 49 of 50", within=PROMPTLY)
    find(browser, "#headings [data-key=state]").click()
    until(lambda: text(browser, "#rows .state") == "✗ failed", within=PROMPTLY)


def test_all_is_reached_by_keyboard_alone(browser: Chrome, many: Collector) -> None:
    opened(browser, many.url)
    press(browser, Keys.TAB)
    assert focused(browser) == "Skip to the nodes"
    press(browser, Keys.ENTER, Keys.TAB)
    assert focused(browser) == "search"
    press(browser, *"node77")
    until(lambda: "q=node77" in browser.current_url)
    press(browser, Keys.TAB)
    assert focused(browser) == "sort"
    press(browser, "n")  # Node
    until(lambda: "sort=name" in browser.current_url)
    press(browser, Keys.TAB)
    assert focused(browser) == "descending"
    press(browser, Keys.SPACE)
    until(lambda: "order=descending" in browser.current_url)
    until(lambda: text(browser, "#rows a") == "node779")
    press(browser, Keys.TAB, Keys.ARROW_RIGHT)  # from `table` to `grid`
    until(lambda: "view=grid" in browser.current_url and cells(browser) == 11)
    press(browser, Keys.TAB, Keys.TAB, Keys.ENTER)  # the second node
    until(lambda: text(browser, "#name") == "node770")
    press(browser, Keys.TAB)
    assert focused(browser) == "All nodes"


def test_paper_has_the_whole_table_in_dark_on_white_and_no_controls(browser: Chrome, many: Collector) -> None:
    opened(browser, f"{many.url}/?sort=state")
    until(lambda: len(browser.find_elements(By.CSS_SELECTOR, "#rows tr")) == 100)
    (SCREENSHOTS / "table.pdf").write_bytes(base64.b64decode(browser.print_page()))
    assert (SCREENSHOTS / "table.pdf").read_bytes().count(b"/Type /Page\n") in range(2, 8)
    assert_fits_on_paper(browser)
    opened(browser, f"{many.url}/nodes/1")
    until(lambda: text(browser, "#error"))
    (SCREENSHOTS / "node.pdf").write_bytes(base64.b64decode(browser.print_page()))
    assert_fits_on_paper(browser)


def assert_fits_on_paper(browser: Chrome) -> None:
    """Nothing is wider than a page of A4, and text is dark on white, whatever colours the user prefers on screens."""
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
    metrics = {"width": A4[0], "height": A4[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    body = find(browser, "body")
    colours = [body.value_of_css_property(name) for name in ("color", "background-color")]
    hidden = [
        one.is_displayed() for one in browser.find_elements(By.CSS_SELECTOR, "#tools, #connection, .pages, .skip")
    ]
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": dark})
    assert width <= A4[0]
    assert colours == ["rgba(26, 26, 26, 1)", "rgba(255, 255, 255, 1)"]
    assert not any(hidden)
