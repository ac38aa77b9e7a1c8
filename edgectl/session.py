"""The HTTP session of a board: TLS as pinned, and nothing that nobody asked for."""

from __future__ import annotations

import urllib.request
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from edgewire import WIRE_VERSION
from edgewire.messages import WIRE_HEADER


class _PinnedAdapter(HTTPAdapter):
    """Connections with our TLS context, and no retries of urllib3's own: ours know the deadline."""

    def __init__(self, context: Any) -> None:
        self._context = context
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)


def session(url: str, context: Any, *, use_proxy: bool) -> requests.Session:
    """Nothing from the environment (.netrc, proxies, CA variables) unless asked for, no cookies, and few headers: an
    hourly sync of a large fleet is mostly headers."""
    made = requests.Session()
    made.trust_env = False
    made.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    skip = urllib3.util.SKIP_HEADER
    made.headers.clear()
    made.headers.update({WIRE_HEADER: str(WIRE_VERSION), "User-Agent": skip, "Accept-Encoding": skip})
    made.adapters.clear()  # https only: plain http has no adapter and fails
    made.mount("https://", _PinnedAdapter(context))
    if use_proxy:
        made.proxies.update(urllib.request.getproxies())
    return made
