"""From values to HTML: the one home of Jinja2. Every value is escaped; a name that is missing is an error.

The policy allows no script and no style inside a page, nothing from other hosts, and no frame around it.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import jinja2
from starlette.responses import HTMLResponse, Response

from cloud_aug import logs
from cloud_aug.console import words
from edgewire.errors import EdgeError

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",  # without any, browsers would not say either where a form came from
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


def page(template: str, /, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A template, filled."""
    return HTMLResponse(_templates().get_template(template).render(values), status_code=status, headers=HEADERS)


def refusal(error: EdgeError) -> Response:
    """An error as a page that says what to do next."""
    request = logs.request_id.get() if error.http_status >= 500 else ""
    made = page("error.html", status=error.http_status, error=error, request=request, visitor=None)
    if error.retry_after_s is not None:
        made.headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return made


def redirect(to: str) -> Response:
    """See another page, by GET."""
    return Response(status_code=303, headers={**HEADERS, "location": to})


@functools.cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for word in (words.moment, words.ago, words.span, words.number, words.gain, words.size):
        made.filters[word.__name__] = word
    return made
