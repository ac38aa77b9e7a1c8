"""What all tables are made of, wherever they are written down: `db.py`, `db_rounds.py`."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()


def byte_ordered(length: int) -> sa.types.TypeEngine[str]:
    """Text that is sorted by its bytes on every database: what is built in this order must not differ between them."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


# A number for each row: on PostgreSQL of 64 bits, which SQLite's always are.
row_id = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
