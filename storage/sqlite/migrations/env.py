"""What Alembic runs migrations in: the connection, and the transaction on it, are those of `run`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
