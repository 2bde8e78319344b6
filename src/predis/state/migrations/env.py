"""Run by Alembic. The connection always comes from ``predis.state.migrations.upgrade``."""

from alembic import context

from predis.state.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
