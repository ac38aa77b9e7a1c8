"""Every page of the console."""

from __future__ import annotations

from fastapi import APIRouter

from cloud_aug.console import entry, fleet, learning, live, overview, releasing, rounds, work

PAGES = (entry, overview, fleet, learning, releasing, rounds, work, live)

router = APIRouter(include_in_schema=False)
for pages in PAGES:
    router.include_router(pages.router)
