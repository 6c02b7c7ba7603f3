"""Runs the migrations under Alembic, on the connection and in the transaction that `meter.store.engine` hands over."""

from __future__ import annotations

from alembic import context

import meter.store.integration_schema
import meter.store.money_schema  # noqa: F401 - its tables are in the metadata too
from meter.store.engine import VERSION_TABLE
from meter.store.schema import metadata


def run() -> None:
    """Migrations run on a given connection only; there is no offline mode."""
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


run()
