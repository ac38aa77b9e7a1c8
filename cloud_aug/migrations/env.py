"""Alembic runs this. The connection, and so the transaction, comes from `bring_up_to_date`."""

from __future__ import annotations

from alembic import context

from cloud_aug.db import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
