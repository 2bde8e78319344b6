"""Performance of every kind of model"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# So far every model was a classifier of two classes, and nobody counted labels from before their predictions.
_COLUMNS: tuple[tuple[str, sa.types.TypeEngine[Any], str], ...] = (
    ("task", sa.String(length=16), "binary"),
    ("early_labels", sa.BigInteger(), "0"),
    ("closed_at", sa.BigInteger(), "0"),
)


def upgrade() -> None:
    with op.batch_alter_table("performance", schema=None) as batch_op:
        for name, kind, so_far in _COLUMNS:
            batch_op.add_column(sa.Column(name, kind, nullable=False, server_default=so_far))
    performance = sa.table("performance", sa.column("closed_at"), sa.column("last_event"))
    op.execute(performance.update().values(closed_at=performance.c.last_event))  # as near as anybody knows
    with op.batch_alter_table("performance", schema=None) as batch_op:
        for name, kind, _so_far in _COLUMNS:
            batch_op.alter_column(name, existing_type=kind, server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("performance", schema=None) as batch_op:
        for name, _kind, _so_far in _COLUMNS:
            batch_op.drop_column(name)
