"""Run by Alembic: migrations on the connection, and in the transaction, of the caller."""

from alembic import context

from cloud_service.records.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite changes tables in a transaction too, once the driver keeps out of it.
    transactional_ddl=True,
)
context.run_migrations()
