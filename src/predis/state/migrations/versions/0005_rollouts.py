"""Rollouts of every strategy, and freeze windows"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from predis.state.schema import Serial

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# What rows of before get; none of them is under way for long.
_COLUMNS = (
    ("share", sa.Float(), "0"),
    ("base", sa.JSON(), "{}"),
    ("ledger", sa.JSON(), "{}"),
    ("looks", sa.BigInteger(), "0"),
    ("moves", sa.JSON(), "[]"),
    ("wish_by", sa.String(length=128), ""),
    ("overrides_freeze", sa.Boolean(), sa.false()),
)


def upgrade() -> None:
    with op.batch_alter_table("rollouts", schema=None) as batch_op:
        for name, kind, value in _COLUMNS:
            batch_op.add_column(sa.Column(name, kind, nullable=False, server_default=value))
        batch_op.add_column(sa.Column("began_at", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("rollouts", schema=None) as batch_op:
        for name, _kind, _value in _COLUMNS:
            batch_op.alter_column(name, server_default=None)
    op.create_table(
        "freezes",
        sa.Column("id", Serial, autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=True),
        sa.Column("ends_at", sa.BigInteger(), nullable=True),
        sa.Column("weekly", sa.String(length=64), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_freezes")),
    )
    op.create_table(
        "backtests",
        sa.Column("id", Serial, autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("candidate", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("asked", sa.JSON(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backtests")),
    )
    op.create_index(
        "uq_backtests_active",
        "backtests",
        ["tenant", "endpoint"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("backtests")
    op.drop_table("freezes")
    with op.batch_alter_table("rollouts", schema=None) as batch_op:
        for name in ("began_at", *(each for each, _kind, _value in _COLUMNS)):
            batch_op.drop_column(name)
