"""Alembic's entry point: the caller gives the connection, as the role that owns the schema."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
