"""The console in real Chromium against the real service. `CONSOLE_PICTURE=docs/console.png` also makes the picture."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from cloud_aug import audit, boards, jobs, sessions
from cloud_aug.console.visitor import COOKIE
from cloud_aug.releases import status, waves
from tests.console import world

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

PICTURE = os.environ.get("CONSOLE_PICTURE", "")
DESK, PHONE = {"width": 1200, "height": 860}, {"width": 375, "height": 740}
WIDTHS = (1200, 1001, 800, 721, 375, 320)
NASTY = f"b{1:016x}"
PATHS = (
    "/",
    "/boards?q=board-0000",
    f"/boards/b{2:016x}",
    f"/boards/{NASTY}/revoke",
    "/tasks",
    "/tasks/toy",
    "/models",
    "/releases",
)
MORE = ("/rounds", "/jobs", "/audit", "/accounts", f"/boards/b{0xFF:016x}")

Open = Callable[..., "BrowserContext"]


@pytest.fixture
def opened(browser: Browser, served) -> Iterator[Open]:
    """Makes browsers of their own: opened(name='ann', color_scheme='dark')."""
    contexts = []
    server, made = served

    def make(name: str = "", **options: Any) -> BrowserContext:
        # the service's own CA is in no browser
        context = browser.new_context(base_url=server.url, ignore_https_errors=True, **{"viewport": DESK, **options})
        context.set_default_timeout(45_000)
        contexts.append(context)
        if name:
            secret = sessions.log_in(made, name, world.PASSWORD, address="::1", shown="", now=time.time())
            context.add_cookies([_cookie(server.url, secret)])
        return context

    yield make
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def release(served) -> str:
    """Under way, watched for an hour before it goes on."""
    return world.release(served[1], now=time.time(), soak_s=3600)


@pytest.fixture(scope="module")
def series(served) -> str:
    """Federated rounds that are over."""
    return world.rounds(served[1], now=time.time())


def _cookie(url: str, value: str) -> Any:
    return {"name": COOKIE, "value": value, "url": url, "secure": True, "httpOnly": True, "sameSite": "Strict"}


def log_in(page: Page, name: str, password: str = world.PASSWORD) -> None:
    page.fill("#name", name)
    page.fill("#password", password)
    page.click("text=Log in")


def test_an_operator_logs_in_watches_a_wave_move_and_aborts_it(opened, served, release):
    page = opened().new_page()
    page.goto(f"/releases/{release}")
    log_in(page, "olga", "not the password")
    assert "password is wrong" in page.inner_text("[role=alert]")
    log_in(page, "olga")
    page.wait_for_selector("text=0 of 2 told")
    page.evaluate("window.stayed = true")
    world.hurry(served[1], release, wave=0)
    page.wait_for_selector("text=2 of 2 told")
    assert page.evaluate("window.stayed")  # without loading the page again
    page.click("#abort")
    page.click("text=Abort this release")
    page.wait_for_selector("h1 + .badge:has-text('aborted')")
    assert status.find(served[1], release).info.reason == "aborted by console:olga"


def test_a_board_is_revoked_with_the_keyboard_alone(opened, served):
    page, board = opened("olga").new_page(), f"b{12:016x}"
    page.goto(f"/boards/{board}")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    for _ in range(9):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "revoke":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/revoke")
    page.focus("text=Revoke this board")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1 + .badge:has-text('revoked')")
    assert [line.actor for line in audit.lines(served[1], action="revoke", limit=1)] == ["console:olga"]


def test_focus_is_seen(opened):
    page = opened("vic").new_page()
    page.goto("/boards")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    outline = "(style => style.outlineStyle + style.outlineWidth)(getComputedStyle(document.activeElement))"
    assert page.evaluate(outline) == "solid3px"


def test_a_viewer_is_offered_nothing_to_change(opened):
    page = opened("vic").new_page()
    page.goto(f"/boards/b{2:016x}")
    assert page.query_selector("#revoke") is None
    assert page.query_selector("text=Audit") is None


def test_a_script_in_a_boards_name_does_not_run(opened):
    page = opened("ann").new_page()
    for path in ("/boards?order=name", f"/boards/{NASTY}", f"/boards/{NASTY}/revoke", "/audit"):
        page.goto(path)
        assert "owned" not in page.evaluate("document.title").replace(world.NASTY, "")
        assert page.query_selector("main img[src=x], main script") is None


def test_not_even_a_script_inside_the_page_would_run(opened):
    page = opened("vic").new_page()
    page.goto("/jobs")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title=2'}))")
    page.wait_for_timeout(300)
    assert page.title().startswith("Jobs")


def test_a_planted_session_is_not_the_one_that_logs_in(opened, served):
    context = opened()
    context.add_cookies([_cookie(served[0].url, "planted-by-somebody-else")])
    page = context.new_page()
    page.goto("/jobs")
    log_in(page, "vic")
    page.wait_for_url("**/jobs")
    held = {cookie["name"]: cookie for cookie in context.cookies()}[COOKIE]
    assert held["value"] != "planted-by-somebody-else"
    assert (held["httpOnly"], held["secure"], held["sameSite"]) == (True, True, "Strict")


def test_a_form_on_another_site_changes_nothing(opened, served):
    server, made = served
    context, board = opened("olga"), f"b{14:016x}"
    form = f'<form method="post" action="{server.url}/boards/{board}/revoke"><button>Win a prize</button></form>'
    context.route("https://evil.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
    page = context.new_page()
    page.goto("https://evil.example/")
    page.click("button")
    page.wait_for_selector("text=another site")
    told = {info.board: info for info in boards.list_all(made)}
    assert told[board].revoked_at is None


def test_a_long_name_leaves_the_other_columns_of_a_phone_their_words_whole(opened):
    page = opened("vic", viewport=PHONE).new_page()
    page.goto("/boards")
    page.wait_for_selector("td time")
    assert page.evaluate("[...document.querySelectorAll('td time')].every((one) => one.offsetHeight < 80)")


def test_an_address_that_is_none_is_a_page_for_a_person(opened):
    page = opened("vic").new_page()
    assert page.goto("/bords").status == 404
    assert "There is no such page" in page.inner_text("h1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "paths", [("/login", *PATHS), (*MORE, "release", "confirm", "series")], ids=["first", "others"]
)
def test_axe_finds_nothing_serious_and_no_width_needs_sideways_scrolling(opened, release, series, scheme, paths):
    from axe_playwright_python.sync_playwright import Axe

    page, axe = opened("ann", color_scheme=scheme).new_page(), Axe()
    if paths[0] == "/login":
        page = opened(color_scheme=scheme).new_page()
        _check(page, axe, "/login")
        page = opened("ann", color_scheme=scheme).new_page()
    named = {"release": f"/releases/{release}", "confirm": f"/releases/{release}/abort", "series": f"/rounds/{series}"}
    for path in paths:
        if path != "/login":
            _check(page, axe, named.get(path, path))


def _check(page: Page, axe: Any, path: str) -> None:
    page.set_viewport_size(DESK)
    page.goto(path)
    found = axe.run(page).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    assert not serious, (path, serious)
    for width in WIDTHS:
        page.set_viewport_size({**PHONE, "width": width})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)


@pytest.mark.skipif(not PICTURE, reason="CONSOLE_PICTURE names no file")
def test_the_picture_of_the_readme_is_made(opened, served):
    made = served[1]
    found = world.release(made, now=time.time())
    for wave in (0, 1):
        world.hurry(made, found, wave=wave)
        waves.advance_all(made, now=time.time())
    page = opened("ann", viewport={"width": 1200, "height": 1130}).new_page()
    with jobs.told(made, "index build", "toy", lambda *_: None) as tell:
        tell("packs", 31, 48)
        page.goto("/")
        page.wait_for_selector("text=31 of 48")
        page.wait_for_selector("#live:not([hidden])")
        page.screenshot(path=PICTURE)
