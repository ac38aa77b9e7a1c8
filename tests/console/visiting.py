"""A browser's part without a browser: cookies, forms with their tokens, and where a form came from."""

from __future__ import annotations

import html
import re
from typing import Any

from starlette.testclient import TestClient

from tests.console import world

ORIGIN = {"Origin": "https://localhost"}


class Visit:
    """visit.log_in("ann"); visit.send("/boards/b.../revoke")"""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def token(self, path: str) -> str:
        """The token in the first form of a page."""
        found = re.search(r'name="form_token" value="([^"]*)"', self.client.get(path).text)
        assert found is not None
        return html.unescape(found[1])

    def log_in(self, name: str, password: str = world.PASSWORD, *, headers: dict[str, str] | None = None) -> Any:
        """Through the form, as a person does."""
        fields = {"form_token": self.token("/login"), "name": name, "password": password, "next": "/"}
        return self.client.post("/login", data=fields, headers={**ORIGIN, **(headers or {})})

    def send(self, path: str, fields: dict[str, str] | None = None, *, headers: dict[str, str] | None = None) -> Any:
        """A form of this session, from this site unless the headers say otherwise."""
        filled = {"form_token": self.token("/jobs"), **(fields or {})}
        return self.client.post(path, data=filled, headers=ORIGIN if headers is None else headers)
