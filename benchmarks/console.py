"""How soon does the console show itself when there are ten thousand boards?

python -m benchmarks.console [--quick] [--json OUT]

The real `cloud-aug serve` on loopback, and the system's Chromium with an empty cache for each page: from the start of
the navigation to the first paint with content. Beside it, in the same run, a static page from the same service.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.figures import Figure
from cloud_aug import cloud, sessions
from cloud_aug.console.visitor import COOKIE
from tests.cloud import toys
from tests.console import world

GOAL_S = 1.0
PAGES = (
    ("overview", "/"),
    ("boards, the first page", "/boards"),
    ("boards, hottest first, page 200", "/boards?order=hottest&page=200"),
    ("boards, by a part of the name", "/boards?q=board-0999&state=well"),
    ("one board", f"/boards/b{2:016x}"),
    ("a release to all of them", "/releases/{release}"),
)
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_SIZE = "performance.getEntriesByType('navigation')[0].transferSize"


def measure(quick: bool) -> list[Figure]:
    boards, rounds = 10_000, 3 if quick else 11
    with tempfile.TemporaryDirectory() as folder:
        data = world.filled(Path(folder) / "cloud", boards=boards)
        made = cloud.open_cloud(data)
        found = world.release(made, now=time.time(), soak_s=3600)
        secret = sessions.log_in(made, "ann", world.PASSWORD, address="::1", shown="", now=time.time())
        with toys.serving(data) as server:
            cookie = {"name": COOKIE, "value": secret, "url": server.url, "secure": True, "sameSite": "Strict"}
            pages = [(name, path.format(release=found)) for name, path in PAGES]
            times = _paints(server.url, cookie, [*pages, ("anchor", "/console/icon.svg")], rounds)
        made.database.close()
    return _told(times, boards)


def _told(times: dict[str, list[tuple[float, int]]], boards: int) -> list[Figure]:
    anchor = statistics.median(paint for paint, _ in times.pop("anchor"))
    said = f"an icon from the same service: {anchor:.3f} s; {boards} boards"
    found = []
    for name, taken in times.items():
        paint, size = statistics.median(t for t, _ in taken), max(s for _, s in taken)
        found.append(figures.at_most(f"first paint: {name}", paint, "s", GOAL_S, anchor=said))
        found.append(figures.noted(f"bytes: {name}", size, "B"))
    return found


def _paints(
    url: str, cookie: dict[str, Any], pages: Sequence[tuple[str, str]], rounds: int
) -> dict[str, list[tuple[float, int]]]:
    """Seconds to the first paint and bytes of the page, by page; each time in a browser context of its own."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("Chromium is not installed (Debian: apt-get install chromium)")
    times: dict[str, list[tuple[float, int]]] = {name: [] for name, _ in pages}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for _ in range(rounds):
            for name, path in pages:
                context = browser.new_context(base_url=url, ignore_https_errors=True)
                context.add_cookies([cookie])  # type: ignore[list-item]
                page = context.new_page()
                page.goto(path)
                page.wait_for_function(f"{_PAINT} > 0")
                times[name].append((page.evaluate(_PAINT) / 1000, page.evaluate(_SIZE)))
                context.close()
        browser.close()
    return times


if __name__ == "__main__":
    figures.run("How soon does the console show itself when there are ten thousand boards?", measure)
