"""Alerting: routes, deliveries, silences, objectives"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLES = ("objective_minutes", "alert_silences", "alert_deliveries", "alert_routes")
_COLUMNS = ("incident", "raised_at", "acknowledged_at", "acknowledged_by", "note")


def upgrade() -> None:
    _extend_alerts()
    _make_outbox()
    _make_silences()
    _make_minutes()


def downgrade() -> None:
    for table in _TABLES:
        op.drop_table(table)
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.drop_index("ix_alerts_incident")
        for column in _COLUMNS:
            batch_op.drop_column(column)


def _extend_alerts() -> None:
    """Alerts so far are incidents of their own."""
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("incident", sa.String(length=32), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("raised_at", sa.BigInteger(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("acknowledged_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(
            sa.Column("acknowledged_by", sa.String(length=128), nullable=False, server_default="")
        )
        batch_op.add_column(sa.Column("note", sa.Text(), nullable=False, server_default=""))
    op.execute("UPDATE alerts SET incident = 'alert-' || CAST(id AS VARCHAR(20)), raised_at = opened_at")
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.alter_column("incident", existing_type=sa.String(length=32), server_default=None)
        batch_op.alter_column("raised_at", existing_type=sa.BigInteger(), server_default=None)
        batch_op.alter_column("acknowledged_by", existing_type=sa.String(length=128), server_default=None)
        batch_op.alter_column("note", existing_type=sa.Text(), server_default=None)
        batch_op.create_index("ix_alerts_incident", ["incident"])


def _make_outbox() -> None:
    op.create_table(
        "alert_routes",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("kinds", sa.JSON(), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("after_s", sa.Float(), nullable=False),
        sa.Column("per_hour", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_alert_routes")),
    )
    op.create_table(
        "alert_deliveries",
        sa.Column("id", _serial(), autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("route", sa.String(length=64), nullable=False),
        sa.Column("incident", sa.String(length=32), nullable=False),
        sa.Column("event", sa.String(length=16), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("notice", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_deliveries")),
    )
    for name, columns in (
        ("state", ["state", "tenant", "route", "incident", "id"]),
        ("incident", ["incident", "route", "id"]),
        ("route", ["tenant", "route", "created_at"]),
    ):
        op.create_index(f"ix_alert_deliveries_{name}", "alert_deliveries", columns)


def _make_silences() -> None:
    op.create_table(
        "alert_silences",
        sa.Column("id", _serial(), autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_silences")),
    )


def _make_minutes() -> None:
    op.create_table(
        "objective_minutes",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("slow", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "endpoint", "start", name=op.f("pk_objective_minutes")),
    )


def _serial() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")
