"""The dashboard in a real browser, served by `gw ui`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from support.pg import Database, wait_for

from gw.ui.site import G, add, claim, fail, fill, silence

pytestmark = pytest.mark.majors(18)

CHROMIUM = "/usr/bin/chromium"
ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
#: Screenshots of the docs: `GW_SCREENSHOTS=docs/images make test TEST="--slow tests/gw/ui/test_browser.py"`.
SCREENS = os.environ.get("GW_SCREENSHOTS")
PAGES = ("", "jobs", "failed", "queues", "workers", "schedules", "doctor", "do/add", "do/limit")

# The contrast of each text with what is behind it, where it is less than WCAG AA asks for.
CONTRAST = """() => {
  const light = (colour) => colour.map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, n) => sum + part * [0.2126, 0.7152, 0.0722][n], 0);
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const found = parts(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *:not(option):not(canvas):not(.quiet)")) {
    if (!node.checkVisibility() || ![...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim())) continue;
    const [a, b] = [light(parts(getComputedStyle(node).color).slice(0, 3)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([node.className, node.textContent.slice(0, 30), ratio]);
  }
  return poor;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.fail("chromium is missing: run `make debian` as root, or install it")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield found
        found.close()


@pytest.fixture
def served(db: Database, tmp_path: Path) -> Iterator[str]:
    """The address of the dashboard."""
    log = tmp_path / "ui.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "graphile_worker.gw.cli", "ui", "--dsn", db.dsn, "--port", "0"],
            stderr=out, stdout=out,
        )  # fmt: skip
        try:
            wait_for(lambda: "running on" in log.read_text() or process.poll() is not None)
            (address,) = re.findall(r"running on (http://\S+)", log.read_text())
            yield f"{address}/queue/"
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0, log.read_text()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which nothing may go wrong."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    found, wrong = context.new_page(), list[str]()
    found.on("console", lambda message: wrong.append(message.text))
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("dialog", lambda dialog: wrong.append(dialog.message))
    yield found
    assert not found.evaluate("window.broken === true")
    context.close()
    assert not wrong, wrong


def screen(page: Page, name: str) -> None:
    if SCREENS:
        page.screenshot(path=f"{SCREENS}/ui-{name}.png")


def test_from_the_front_page_to_the_traceback_in_one_click(
    db: Database, served: str, page: Page
) -> None:
    fill(db)
    page.goto(served)
    page.get_by_role("link", name=re.compile("^ValueError")).click()
    assert page.locator(".trace").first.is_visible()
    assert "<script>" in page.locator(".trace").first.inner_text(), "as text"


@pytest.mark.slow
def test_the_docs_show_a_queue_at_work(db: Database, served: str, page: Page) -> None:
    db.rows(f"select {G}.keep_history(payloads := true)")
    for task, error in (
        ("charge_card", "PaymentError: card 4242 was declined"),
        ("sync_customer", "TimeoutError: crm.example.org did not answer within 10 s"),
    ):
        trace = f'Traceback (most recent call last):\n  File "app/tasks.py", line 41, in {task}\n    {error}'
        for n in range(3):
            job = add(db, task, {"customer": n, "card_token": "tok_1"}, max_attempts=1)
            assert claim(db, "worker-3f2a") == [job]
            fail(db, job, trace.replace("    " + error, f"    raise\n{error}"), "worker-3f2a")
    page.goto(served)
    while _samples(page) < 20:
        for n in range(5 + _samples(page) % 4):
            add(
                db, "send_email" if n % 2 else "resize", queue_name=f"tenant {n % 3}" if n else None
            )
        done = claim(db, "worker-3f2a", 4)
        db.rows(f"select {G}.finish_jobs('worker-3f2a', %s)", done)
        page.wait_for_timeout(250)
    claim(db, "worker-3f2a", 3)
    page.reload()
    wait_for(lambda: page.locator("#plot canvas").count())
    page.wait_for_timeout(3000)
    screen(page, "overview")
    page.get_by_role("link", name=re.compile("^PaymentError")).first.click()
    screen(page, "job")


def test_every_page_is_readable_in_light_and_dark_and_on_a_phone(
    db: Database, served: str, browser: Browser
) -> None:
    jobs = fill(db)
    silence(db)
    pages = [*PAGES, *(f"jobs/{job}" for job in jobs.values()), f"do/cancel?id={jobs['ready']}"]
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, viewport={"width": 320, "height": 640})
        page = context.new_page()
        for path in pages:
            page.goto(served + path)
            assert page.evaluate(CONTRAST) == [], (scheme, path)
            assert page.evaluate("document.documentElement.scrollWidth") == 320, path
        if scheme == "dark":
            page.set_viewport_size({"width": 1200, "height": 800})
            page.goto(f"{served}queues")
            screen(page, "dark")
        context.close()


def test_it_is_used_by_keyboard_alone(db: Database, served: str, page: Page) -> None:
    job = add(db)
    page.goto(f"{served}jobs/{job}")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement.textContent") != "Cancel…":
        assert page.evaluate("document.activeElement !== document.body")
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/do/cancel?*")
    page.get_by_label("Reason").focus()
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    page.get_by_text(f"Cancelled job {job}.").wait_for()
    assert db.column(f"select id from {G}.jobs") == []


def test_without_javascript_all_is_read_and_done(
    db: Database, served: str, browser: Browser
) -> None:
    job = add(db, run_at="2100-01-01T00:00:00Z")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(served)
    page.get_by_role("link", name="Scheduled").click()
    page.get_by_role("link", name=str(job), exact=True).click()
    page.get_by_role("link", name="Run now…").click()
    page.get_by_role("button", name="Run now").click()
    assert page.get_by_text("Made due now").is_visible()
    context.close()


def _text(page: Page, selector: str, wanted: str) -> None:
    """Wait until something shows a text, without the page being loaded again."""
    page.locator(selector).filter(has_text=re.compile(wanted)).wait_for()


def _samples(page: Page) -> int:
    return int(page.evaluate("document.getElementById('plot').dataset.count ?? 0"))


def test_what_happens_is_seen_as_it_happens(db: Database, served: str, page: Page) -> None:
    page.goto(served)
    page.evaluate("window.same = true")
    _text(page, "#total-ready", "^0$")
    add(db)
    _text(page, "#total-ready", "^1$")
    wait_for(lambda: _samples(page) > 1)
    assert page.locator("#plot canvas").is_visible(), "the plot stays when the page changes"
    page.get_by_role("button", name="Pause updates").click()
    add(db)
    before = _samples(page)
    wait_for(lambda: _samples(page) > before + 1)
    _text(page, "#total-ready", "^1$")
    page.get_by_role("button", name="Go on updating").click()
    _text(page, "#total-ready", "^2$")
    assert page.evaluate("window.same")


def test_a_worker_that_dies_is_seen_by_who_watches(
    db: Database, served: str, page: Page, tmp_path: Path
) -> None:
    silent = f"select {G}.set_recovery('2 seconds')"
    db.rows(silent)
    add(db, "say", {"seconds": 600})
    program = Path(__file__).parents[2] / "support" / "process.py"
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, program, db.dsn, "0"], stderr=log, stdout=log
        )  # fmt: skip
        try:
            page.goto(f"{served}workers")
            _text(page, "tbody .state", "alive")
            page.get_by_role("table", name="Running now").get_by_text("say").wait_for()
            screen(page, "workers")
        finally:
            worker.kill()
            worker.wait()
    _text(page, "tbody .state", "silent")


def test_a_server_that_goes_away_is_said_and_comes_back(
    db: Database, served: str, page: Page, request: Any
) -> None:
    page.goto(served)
    _text(page, "#live", "^live: ")
    # That of the samples, which is older than those of pages that are just being asked for.
    db.rows(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name = 'gw ui'"
        " order by backend_start limit 1"
    )
    add(db)
    _text(page, "#total-ready", "^1$")
    _text(page, "#live", "live")


def test_a_page_that_somebody_types_into_is_left_alone(
    db: Database, served: str, page: Page
) -> None:
    page.goto(f"{served}jobs")
    page.get_by_label("Task").fill("half of a na")
    add(db)
    add(db)
    _text(page, "#live", "^live: [0-9.]*[1-9][0-9.]*/s added")
    _text(page, "#live", "^live: 0/s added")
    assert page.get_by_label("Task").input_value() == "half of a na"
    assert "0 jobs" in page.locator("#count").inner_text()
