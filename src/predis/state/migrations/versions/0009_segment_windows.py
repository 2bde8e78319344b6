"""Windows by time and by segment; what the detectors of risen loss remember; where routes of alerts come from"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("alert_routes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("origin", sa.String(length=32), nullable=False, server_default=""))
    with op.batch_alter_table("alert_routes", schema=None) as batch_op:
        batch_op.alter_column("origin", existing_type=sa.String(length=32), server_default=None)
    for table in ("predictions", "labelled"):
        op.add_column(table, sa.Column("cells", sa.LargeBinary(), nullable=True))
    op.create_table(
        "segment_levels",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("segment", sa.String(length=512), nullable=False),
        sa.Column("level", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "endpoint", "number", name=op.f("pk_segment_levels")),
    )
    _create_windows()
    op.create_table(
        "loss_watches",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("next", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "endpoint", "version", name=op.f("pk_loss_watches")),
    )


def _create_windows() -> None:
    key = ("tenant", "endpoint", "version", "number", "start")
    counts = ("length", "requests", "failed", "rejected", "rows")
    op.create_table(
        "segment_windows",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counts),
        *(sa.Column(name, sa.LargeBinary(), nullable=False) for name in ("latency", "scores", "strange")),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("matured", "measured", "measured_at")
        ),
        sa.Column("measures", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint(*key, name=op.f("pk_segment_windows")),
    )
    due = ["tenant", "endpoint", "measured", "matured"]
    op.create_index("ix_segment_windows_due", "segment_windows", due)
    op.create_index("ix_segment_windows_start", "segment_windows", ["start"])


def downgrade() -> None:
    op.drop_table("loss_watches")
    op.drop_table("segment_windows")
    op.drop_table("segment_levels")
    for table in ("predictions", "labelled"):
        op.drop_column(table, "cells")
    with op.batch_alter_table("alert_routes", schema=None) as batch_op:
        batch_op.drop_column("origin")
