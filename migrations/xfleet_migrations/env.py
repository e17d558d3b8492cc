"""Alembic's way in: runs on the connection it was handed."""

from alembic import context

config = context.config
connection = config.attributes["connection"]
context.configure(connection=connection, target_metadata=config.attributes.get("metadata"), render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
