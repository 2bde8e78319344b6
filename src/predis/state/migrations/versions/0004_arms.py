"""Arms: evidence of rollouts apart from other traffic; segments and shadows of Routes"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SCORE_BUCKETS = 295
_VERSION = ("tenant", "endpoint", "version")


def upgrade() -> None:
    _let_routes_segment()
    _split_evidence_by_arm()
    _make_shadow_tables()


def downgrade() -> None:
    for table in ("shadow_differences", "shadow_labels", "shadow_predictions"):
        op.drop_table(table)
    _join_arms()
    with op.batch_alter_table("routes", schema=None) as batch_op:
        for column in ("salt", "shadows", "segments"):
            batch_op.drop_column(column)


def _let_routes_segment() -> None:
    """The Routes so far have none."""
    columns: list[tuple[str, sa.types.TypeEngine[Any], str]] = [
        ("segments", sa.JSON(), "[]"),
        ("shadows", sa.JSON(), "[]"),
        ("salt", sa.String(length=64), ""),
    ]
    with op.batch_alter_table("routes", schema=None) as batch_op:
        for name, kind, nothing in columns:
            batch_op.add_column(sa.Column(name, kind, nullable=False, server_default=nothing))
    with op.batch_alter_table("routes", schema=None) as batch_op:
        for name, kind, _nothing in columns:
            batch_op.alter_column(name, existing_type=kind, server_default=None)


def _split_evidence_by_arm() -> None:
    """What was counted so far is ordinary traffic; its scores were not counted."""
    with op.batch_alter_table("counters", schema=None) as batch_op:
        batch_op.add_column(sa.Column("arm", sa.SmallInteger(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("scores", sa.LargeBinary(), nullable=True))
    counters = sa.table("counters", sa.column("scores", sa.LargeBinary()))
    op.get_bind().execute(counters.update().values(scores=bytes(8 * _SCORE_BUCKETS)))
    with op.batch_alter_table("counters", schema=None) as batch_op:
        batch_op.alter_column("arm", existing_type=sa.SmallInteger(), server_default=None)
        batch_op.alter_column("scores", existing_type=sa.LargeBinary(), nullable=False)
        batch_op.drop_constraint(op.f("pk_counters"), type_="primary")
        batch_op.create_primary_key(op.f("pk_counters"), [*_VERSION, "arm"])
    for table in ("predictions", "labelled"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("arm", sa.SmallInteger(), nullable=False, server_default="0"))
    for table in ("feedback", "labelled"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("value", sa.Float(), nullable=True))


def _make_shadow_tables() -> None:
    op.create_table(
        "shadow_predictions",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("scores", sa.LargeBinary(), nullable=False),
        sa.Column("answers", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "endpoint", "id", "version", name=op.f("pk_shadow_predictions")),
    )
    op.create_index("ix_shadow_predictions_received_at", "shadow_predictions", ["received_at"])
    op.create_table(
        "shadow_labels",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("answered", sa.Float(), nullable=False),
        sa.Column("label", sa.Float(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(*_VERSION, "number", name=op.f("pk_shadow_labels")),
    )
    op.create_index("ix_shadow_labels_received_at", "shadow_labels", ["received_at"])
    op.create_table(
        "shadow_differences",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("flips", sa.BigInteger(), nullable=False),
        sa.Column("mean", sa.Float(), nullable=False),
        sa.Column("m2", sa.Float(), nullable=False),
        sa.Column("worst", sa.Float(), nullable=False),
        sa.Column("sizes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(*_VERSION, name=op.f("pk_shadow_differences")),
    )


def _join_arms() -> None:
    """A version has one row of counters again. Labels go on being numbered where they were; other counts of compared traffic are lost."""
    op.execute("DELETE FROM counters WHERE arm = 2")
    op.execute(
        "UPDATE counters SET matured = (SELECT SUM(other.matured) FROM counters AS other WHERE "
        "other.tenant = counters.tenant AND other.endpoint = counters.endpoint AND other.version = counters.version)"
    )
    op.execute(
        "DELETE FROM counters WHERE arm = 1 AND EXISTS (SELECT 1 FROM counters AS other WHERE other.arm = 0 AND "
        "other.tenant = counters.tenant AND other.endpoint = counters.endpoint AND other.version = counters.version)"
    )
    for table in ("labelled", "feedback"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("value")
    for table in ("labelled", "predictions"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("arm")
    with op.batch_alter_table("counters", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("pk_counters"), type_="primary")
        batch_op.create_primary_key(op.f("pk_counters"), [*_VERSION])
        batch_op.drop_column("scores")
        batch_op.drop_column("arm")
