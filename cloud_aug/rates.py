"""How often a board may ask in a minute, and an address that shows no valid token: counted where every worker and
service sees it, and nowhere for long.

The counters are worth nothing after a minute: a file of their own that is never flushed, or a table that PostgreSQL
does not log; those of the minute before are deleted. A count that cannot be kept lets the request through: the limit is
there to protect the service.
"""

from __future__ import annotations

import logging
import threading

import sqlalchemy as sa

from cloud_aug.addresses import network
from cloud_aug.cloud import Cloud
from edgewire.errors import RateLimited

WINDOW_S = 60
FILE_NAME = "rates.sqlite3"
ADDRESSES = 10_000  # that a worker counts apart in a minute; later ones are counted together
_OTHERS = "address others"

_log = logging.getLogger(__name__)
_COUNT = (
    "INSERT INTO rates (who, minute, count) VALUES ({mark}, {mark}, 1) "
    "ON CONFLICT (who) DO UPDATE SET minute = excluded.minute, "
    "count = CASE WHEN rates.minute = excluded.minute THEN rates.count + 1 ELSE 1 END RETURNING count"
)
_FORGET = "DELETE FROM rates WHERE minute < {mark}"


class Rates:
    """Counters of requests per board, or address, and minute, shared by all that stand on the same database."""

    def __init__(self, cloud: Cloud) -> None:
        self._limits = cloud.settings.limits
        self._postgres = cloud.database.engine.dialect.name == "postgresql"
        if self._postgres:
            self._engine = cloud.database.engine
            table, mark = "UNLOGGED TABLE", "%s"
        else:
            self._engine = _file_engine(f"sqlite:///{cloud.settings.data / FILE_NAME}")
            table, mark = "TABLE", "?"
        self._count, self._forget = _COUNT.format(mark=mark), _FORGET.format(mark=mark)
        self._make = (
            f"CREATE {table} IF NOT EXISTS rates (who TEXT PRIMARY KEY, minute BIGINT NOT NULL, count BIGINT NOT NULL)"
        )
        self._lock, self._made = threading.Lock(), False
        self._minute, self._addresses = 0, set[str]()

    def spend(self, board: str, *, now: float) -> None:
        """Count a request of a board. Raises RateLimited, which says when the next minute begins."""
        hint = "sync less often, or ask the administrator for a higher limit"
        self._spend(board, self._limits.requests_per_board_per_minute, hint, now=now)

    def spend_stranger(self, address: str, *, now: float) -> None:
        """Count a request without a valid token. Raises RateLimited."""
        who = f"address {network(address)}"
        if len(self._addresses) < ADDRESSES:
            self._addresses.add(who)
        hint = "boards behind one address share its limit; ask the administrator for a higher one"
        counted = who if who in self._addresses else _OTHERS
        self._spend(counted, self._limits.requests_per_address_per_minute, hint, now=now)

    def _spend(self, who: str, limit: int, hint: str, *, now: float) -> None:
        try:
            count = self._counted(who, int(now // WINDOW_S))
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            _log.warning("requests are not counted: %s", type(error).__name__)
            return
        if count > limit:
            left_s = WINDOW_S - now % WINDOW_S
            raise RateLimited(f"more than {limit} requests in a minute", hint=hint, retry_after_s=left_s)

    def close(self) -> None:
        """Give back what was opened for counting."""
        if not self._postgres:
            self._engine.dispose()

    def _counted(self, who: str, minute: int) -> int:
        with self._lock:
            if not self._made:
                with self._engine.begin() as connection:
                    connection.exec_driver_sql(self._make)
                self._made = True
        with self._engine.begin() as connection:
            if self._postgres:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            if minute > self._minute:
                connection.exec_driver_sql(self._forget, (minute,))
                self._minute, self._addresses = minute, set()
            return int(connection.exec_driver_sql(self._count, (who, minute)).scalar_one())


def _file_engine(address: str) -> sa.Engine:
    engine = sa.create_engine(address)

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        for pragma in ("journal_mode=WAL", "synchronous=OFF", "busy_timeout=1000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine
