"""The page in a real browser, Debian's Chromium. Screenshots are in `work/screenshots`, to look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from fakes.collector import Collector, Document, collector, mac_of, report
from fakes.waiting import until
from page.chromium import SCREENSHOTS, chromium, find, opened, text

HOSTILE = '<img src=x onerror="window.owned=1"><script>window.owned=1</script>"\'`${1}&lt;'

ALL_TEXT = "return document.body.textContent + (document.querySelector('[aria-label*=img]')?.ariaLabel ?? '')"


@pytest.fixture(scope="module", params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    """The colours that the browser's user prefers."""
    return str(request.param)


@pytest.fixture(scope="module")
def browser(scheme: str) -> Iterator[Chrome]:
    with chromium(scheme) as driver:
        yield driver


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, scheme: str) -> Iterator[Collector]:
    """120 nodes in several states, and a hostile one."""
    with collector(tmp_path_factory.mktemp(f"fleet-{scheme}")) as collecting:
        for number in range(1, 121):
            phase = "failed" if number % 20 == 0 else "fetching" if number % 7 == 0 else "done"
            lines = [f"line {line} of the journal" for line in range(200)] if phase == "failed" else []
            units = [
                {"name": "app.service", "artifact": "model", "required": False, "result": "started", "seconds": 0.2}
            ]
            assert collecting.post(report(number, phase=phase, journal=lines, units=units)).status_code == 204
        assert collecting.post(hostile()).status_code == 204
        yield collecting


def hostile() -> Document:
    """A report whose every text is an attack."""
    document = report(666, phase="failed", cause=HOSTILE, message=HOSTILE, journal=[HOSTILE] * 200, agent=HOSTILE)
    document["node"] = {"hostname": HOSTILE, "arch": HOSTILE, "mac": mac_of(666)}
    document["config"] = dict.fromkeys(("source", "path_or_url", "sha256"), HOSTILE)
    texts = dict.fromkeys(("name", "dest", "url", "final_url", "remark", "sha256", "error", "cause"), HOSTILE)
    document["artifacts"] = [document["artifacts"][0] | texts]
    document["units"] = [dict.fromkeys(("name", "artifact", "result", "message"), HOSTILE) | {"seconds": 1}]
    return document


def rows(browser: Chrome) -> list[str]:
    """The names in the table."""
    return browser.execute_script("return [...document.querySelectorAll('#rows a')].map((one) => one.textContent)")  # type: ignore[no-any-return]


def assert_nothing_is_wrong(browser: Chrome) -> None:
    """No error of a script, nothing that the content security policy had to stop, and no script of a node's ran."""
    log = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [one["message"] for one in log if one["level"] == "SEVERE"] == []
    assert browser.execute_script("return window.owned") is None
    assert not browser.find_elements(By.CSS_SELECTOR, "img")


def test_table_shows_counts_and_is_filtered_sorted_and_paged(browser: Chrome, fleet: Collector, scheme: str) -> None:
    opened(browser, fleet.url)
    until(lambda: len(rows(browser)) == 100)
    assert find(browser, "#total").text == "121 nodes"
    browser.save_screenshot(str(SCREENSHOTS / f"table-{scheme}.png"))
    find(browser, "#next").click()
    until(lambda: len(rows(browser)) == 21)
    find(browser, "#states .failed").click()
    until(lambda: len(rows(browser)) == 7)
    assert find(browser, "#states .failed").get_attribute("aria-pressed") == "true"
    assert "state=failed" in browser.current_url
    find(browser, "#search").send_keys("node12")
    until(lambda: rows(browser) == ["node120"])
    find(browser, "#search").clear()
    find(browser, "#search").send_keys(" ")
    until(lambda: len(rows(browser)) == 7)
    Select(find(browser, "#sort")).select_by_value("name")
    find(browser, "#descending").click()
    until(lambda: rows(browser)[0] == "node80")
    assert find(browser, "th[aria-sort]").get_attribute("aria-sort") == "descending"
    assert_nothing_is_wrong(browser)


def test_grid_has_a_cell_for_each_node(browser: Chrome, fleet: Collector, scheme: str) -> None:
    opened(browser, f"{fleet.url}/?view=grid")
    until(lambda: len(browser.find_elements(By.CSS_SELECTOR, "#grid a")) == 121)
    labels = browser.execute_script("return [...document.querySelectorAll('#grid a')].map((one) => one.ariaLabel)")
    assert "node20: failed, artifacts" in labels
    cell = find(browser, "#grid .failed")
    assert cell.text == "✗"
    assert cell.value_of_css_property("border-top-color") == "rgba(213, 94, 0, 1)"
    browser.save_screenshot(str(SCREENSHOTS / f"grid-{scheme}.png"))
    assert_nothing_is_wrong(browser)


def test_page_of_a_failed_node_says_why_and_what_to_do(browser: Chrome, fleet: Collector, scheme: str) -> None:
    opened(browser, f"{fleet.url}/nodes/{fleet.nodes()['node20']['id']}")
    until(lambda: text(browser, "#name") == "node20")
    assert "No server could be reached, or none had the file." in find(browser, "#error").text
    assert find(browser, "#journal").text.splitlines()[-1] == "line 199 of the journal"
    assert "model failed 700 B of 1,000 B 2 1.5" in find(browser, "#artifacts").text
    assert "app.service model started" in find(browser, "#units").text
    assert "failed artifacts model: the server answered 503" in find(browser, "#timeline").text
    browser.save_screenshot(str(SCREENSHOTS / f"node-{scheme}.png"))
    assert_nothing_is_wrong(browser)


def test_hostile_report_is_shown_as_the_text_that_it_is(browser: Chrome, fleet: Collector) -> None:
    (number,) = [one["id"] for one in fleet.nodes().values() if one["mac"] == mac_of(666)]
    for path in (f"?q={mac_of(666)}", f"?view=grid&q={mac_of(666)}", f"nodes/{number}"):
        opened(browser, f"{fleet.url}/{path}")
        until(lambda: HOSTILE in browser.execute_script(ALL_TEXT))
        assert_nothing_is_wrong(browser)


def test_change_is_shown_within_two_seconds_and_focus_stays(browser: Chrome, fleet: Collector, scheme: str) -> None:
    name = f"live-{scheme}"
    opened(browser, f"{fleet.url}/?sort=name&q=live-")
    ActionChains(browser).send_keys(Keys.TAB).perform()
    assert browser.switch_to.active_element.text == "Skip to the nodes"
    browser.execute_script("document.querySelector('#states .done').focus()")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    until(lambda: "state=done" in browser.current_url)
    node = {"hostname": name, "arch": "x86_64", "mac": mac_of(700 + len(name))}
    fleet.post(report(1, phase="done", node=node))
    until(lambda: name in rows(browser), within=2.5)
    assert browser.switch_to.active_element.get_attribute("aria-pressed") == "true"
    until(lambda: "at most" in text(browser, "#throughput-text"), within=40)  # once an interval is complete
    assert find(browser, "#throughput polyline").get_attribute("points")
    assert_nothing_is_wrong(browser)


def test_collector_that_is_gone_is_said_and_found_again(browser: Chrome, tmp_path: Path, scheme: str) -> None:
    with collector(tmp_path / "c", listen=f"127.0.0.1:{18800 + (scheme == 'dark')}") as collecting:
        opened(browser, collecting.url)
        collecting.process.kill()
        until(lambda: "does not answer" in text(browser, "#connection"))
        collecting.restart()
        until(lambda: text(browser, "#connection") == "Live")


def test_every_control_has_a_name_and_text_has_contrast(browser: Chrome, fleet: Collector) -> None:
    for url in (fleet.url, f"{fleet.url}/?view=grid", f"{fleet.url}/nodes/1"):
        opened(browser, url)
        tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        controls = [
            one
            for one in tree
            if one.get("role", {}).get("value")
            in ("button", "link", "textbox", "searchbox", "combobox", "radio", "checkbox")
        ]
        assert controls
        assert [one for one in controls if not one.get("name", {}).get("value")] == []
        text, back = (find(browser, "body").value_of_css_property(name) for name in ("color", "background-color"))
        assert contrast(text, back) >= 7  # WCAG 2.2, 1.4.6


def contrast(one: str, other: str) -> float:
    """The contrast of two colours (WCAG 2.2, "contrast ratio")."""

    def luminance(colour: str) -> float:
        values = [int(part) / 255 for part in colour[5:-1].split(",")[:3]]
        linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
