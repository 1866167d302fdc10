"""A page in a real browser: it is drawn without a complaint, its switches and sorting work, and a phone shows it."""

from __future__ import annotations

import shutil
import time

import pytest

from ipbench.analysis import write_runs
from ipbench.analysis.report import write_report

from .synthetic import grid, put, record, write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs a browser: sudo apt-get install chromium chromium-driver"
)


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(120)
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    plan = grid(("snip", "grasp"), ("0.9", "0.98"), dense=("sp", "ip")) | {"title": "A </script> & <b>title</b>"}
    by = {(c["method"], c["sparsity"], c["space"]): c for c in plan["cells"]}
    write(folder, plan, skip=[(by["snip", "0.98", "ip"]["id"], seed) for seed in range(6)])
    for seed in range(6):
        put(folder, record(by["grasp", "0.98", "sp"], seed, test_accuracy=0.1))
    write_runs(folder)
    return write_report(folder)


@pytest.fixture
def page(browser, report):
    """The page as a desktop shows it, drawn."""
    screen(browser, 1200, "light")
    browser.get(report.as_uri())
    drawn(browser, 1)
    return browser


def screen(browser, width, scheme):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def drawn(browser, times):
    """Wait until the charts were drawn so many times."""
    end = time.monotonic() + 60
    while browser.execute_script("return Number(document.body.dataset.drawn || 0)") < times:
        assert time.monotonic() < end, browser.get_log("browser")
        time.sleep(0.05)


def marks(browser, chart):
    """How many symbols a chart has, its legend left out."""
    path = f'[data-chart="{chart}"] .mark-symbol.role-mark path'
    return browser.execute_script(f"return document.querySelectorAll('{path}').length")


def test_it_is_drawn_without_a_complaint(page):
    assert (
        page.title
        == "A </script> & <b>title</b>"
        == page.execute_script("return document.querySelector('h1').textContent")
    )
    assert marks(page, "forest") > 3 and marks(page, "accuracy") > 6
    told = page.execute_script("return document.querySelector('[data-chart=\"accuracy\"]').textContent")
    assert "10.00" in told  # the mean that stands at the edge
    assert page.get_log("browser") == []


def test_switches_change_charts_and_tables(page):
    before, rows = marks(page, "accuracy"), visible(page)
    switch(page, "method", "grasp")
    drawn(page, 2)
    assert marks(page, "accuracy") < before and 0 < visible(page) < rows
    switch(page, "method", "grasp")
    switch(page, "space", "IP")
    drawn(page, 4)
    assert marks(page, "accuracy") < before
    heads = "return [...document.querySelectorAll('#table-accuracy th')].filter((one) => one.offsetWidth)"
    names = page.execute_script(f"{heads}.map((one) => one.textContent)")
    assert "SP" in names and "IP" not in names and "method" in names
    assert page.get_log("browser") == []


def test_tables_are_sorted_by_a_click(page):
    column = (
        "const table = document.querySelector('#table-accuracy table');"
        "const at = [...table.tHead.rows[0].cells].findIndex((one) => one.textContent === 'SP');"
    )
    values = f"{column} return [...table.tBodies[0].rows].map((one) => one.cells[at].textContent)"
    click = f"{column} table.tHead.rows[0].cells[at].querySelector('button').click()"
    for sign in (1, -1):
        page.execute_script(click)
        found = [float(text.split(" ")[0]) for text in page.execute_script(values) if text[0].isdigit()]
        assert found == sorted(found, reverse=sign < 0) and len(set(found)) > 3


def test_a_phone_and_a_dark_room(page, report):
    screen(page, 390, "dark")
    page.get(report.as_uri())
    drawn(page, 1)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390
    ends = "[...document.querySelectorAll('.chart svg')].map((one) => one.getBoundingClientRect().right)"
    assert page.execute_script(f"return Math.max(...{ends})") <= 390
    back, ink = page.execute_script(
        "const look = getComputedStyle(document.body); return [look.backgroundColor, look.color]"
    )
    assert back == "rgb(23, 23, 26)" and ink == "rgb(232, 232, 234)"
    assert page.get_log("browser") == []


def visible(browser):
    return browser.execute_script(
        "return [...document.querySelectorAll('tbody tr')].filter((one) => !one.hidden).length"
    )


def switch(browser, facet, value):
    browser.execute_script(f'document.querySelector(\'input[data-facet="{facet}"][value="{value}"]\').click()')
