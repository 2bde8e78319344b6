"""Every table of the state database. Alembic migrations in ``migrations/`` make them; a test compares the two.

Moments are nanoseconds since the epoch (BIGINT), documents are JSON, counts of bins are little-endian int64 bytes, scores little-endian
float64 bytes. Every table
whose rows belong to someone starts its key with ``tenant``.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
)

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only in a column declared INTEGER.
Serial = BigInteger().with_variant(Integer, "sqlite")


def _tenant() -> Column[str]:
    return Column("tenant", String(64), primary_key=True)


api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("tenant", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", String(256), nullable=False),
    Column("detail", sa.JSON, nullable=False),
)

models = Table(
    "models",
    metadata,
    _tenant(),
    Column("name", String(128), primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    # The highest number given so far: that of a deleted version is never given again.
    Column("numbered", Integer, nullable=False, server_default="0"),
)

versions = Table(
    "versions",
    metadata,
    _tenant(),
    Column("model", String(128), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("format", String(32), nullable=False),
    Column("files", sa.JSON, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("signature", sa.JSON, nullable=False),
    Column("metrics", sa.JSON, nullable=False),
    Column("profile", sa.JSON),
    Column("lineage", sa.JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("seal", String(128)),
)

aliases = Table(
    "aliases",
    metadata,
    _tenant(),
    Column("model", String(128), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("moved_at", BigInteger, nullable=False),
    Column("moved_by", String(128), nullable=False),
)

# Every move of an alias; no number before its first, none after it was deleted.
alias_moves = Table(
    "alias_moves",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("tenant", String(64), nullable=False),
    Column("model", String(128), nullable=False),
    Column("alias", String(64), nullable=False),
    Column("before", Integer),
    Column("after", Integer),
    Column("moved_at", BigInteger, nullable=False),
    Column("moved_by", String(128), nullable=False),
    sa.Index("ix_alias_moves_model", "tenant", "model", "id"),
)

# Keys of users whose signatures a tenant trusts. A revoked one stays, so that it is never trusted again by mistake.
trusted_keys = Table(
    "trusted_keys",
    metadata,
    _tenant(),
    Column("id", String(16), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("added_at", BigInteger, nullable=False),
    Column("added_by", String(128), nullable=False),
    Column("revoked_at", BigInteger),
    Column("revoked_by", String(128)),
)

# Users' signatures over versions; in the registry's words endorsements, for a signature there is a model's inputs and outputs.
endorsements = Table(
    "endorsements",
    metadata,
    _tenant(),
    Column("model", String(128), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("key", String(16), primary_key=True),
    Column("signature", String(128), nullable=False),
    Column("signed_at", BigInteger, nullable=False),
    Column("signed_by", String(128), nullable=False),
)

# What a tenant demands, by name; what has no row is not demanded.
policies = Table(
    "policies",
    metadata,
    _tenant(),
    Column("name", String(64), primary_key=True),
    Column("value", sa.JSON, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("changed_by", String(128), nullable=False),
)

endpoints = Table(
    "endpoints",
    metadata,
    _tenant(),
    Column("name", String(128), primary_key=True),
    Column("model", String(128), nullable=False),
    Column("route", Integer, nullable=False),
    Column("config", sa.JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

routes = Table(
    "routes",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("weights", sa.JSON, nullable=False),
    Column("segments", sa.JSON, nullable=False),
    Column("shadows", sa.JSON, nullable=False),
    Column("salt", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("pid", Integer, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("applied", sa.JSON, nullable=False),
    Column("problems", sa.JSON, nullable=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("tenant", String(64), nullable=False),
    Column("endpoint", String(128), nullable=False),
    Column("model", String(128), nullable=False),
    Column("baseline", Integer),
    Column("candidate", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("step", Integer, nullable=False),
    Column("share", Float, nullable=False),
    Column("plan", sa.JSON, nullable=False),
    Column("base", sa.JSON, nullable=False),
    Column("marks", sa.JSON, nullable=False),
    Column("ledger", sa.JSON, nullable=False),
    Column("looks", BigInteger, nullable=False),
    Column("route", Integer, nullable=False),
    Column("verdicts", sa.JSON, nullable=False),
    Column("moves", sa.JSON, nullable=False),
    Column("reason", Text, nullable=False),
    Column("wish", String(16), nullable=False),
    Column("wish_by", String(128), nullable=False),
    Column("overrides_freeze", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("began_at", BigInteger),
    Column("step_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("created_by", String(128), nullable=False),
    sa.Index(
        "uq_rollouts_active",
        "tenant",
        "endpoint",
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    ),
)

# Times in which rollouts do not go forward: between two moments, or every week at the same time. An empty endpoint means all.
freezes = Table(
    "freezes",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("tenant", String(64), nullable=False),
    Column("endpoint", String(128), nullable=False),
    Column("starts_at", BigInteger),
    Column("ends_at", BigInteger),
    Column("weekly", String(64), nullable=False),
    Column("zone", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
)

journal_positions = Table(
    "journal_positions",
    metadata,
    Column("stream", String(128), primary_key=True),
    Column("segment", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("dropped", BigInteger, nullable=False),
    Column("damaged", BigInteger, nullable=False),
)

# One row for each arm of a version (``records.Arm``). ``scores`` counts the scores in the universal buckets of ``stats.score_buckets``.
counters = Table(
    "counters",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("arm", SmallInteger, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    Column("matured", BigInteger, nullable=False),
    Column("latency", LargeBinary, nullable=False),
    Column("scores", LargeBinary, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
)

traffic = Table(
    "traffic",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("latency", LargeBinary, nullable=False),
)

# Slots of traffic that are older: merged into minutes, hours and days; ``width`` in nanoseconds.
traffic_history = Table(
    "traffic_history",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("width", BigInteger, primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("latency", LargeBinary, nullable=False),
    sa.Index("ix_traffic_history_width", "width", "start"),
)

windows = Table(
    "windows",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("first_event", BigInteger, nullable=False),
    Column("last_event", BigInteger, nullable=False),
    Column("features", LargeBinary, nullable=False),
    Column("scores", LargeBinary, nullable=False),
    Column("score_sum", Float, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("verdicts", sa.JSON, nullable=False),
)

# One row per answered request, not per score: it is written for every one and read for those whose label comes. ``sequence`` follows the
# order in which requests were recorded, so that what is old stands at the front and needs no index of its own to be found.
predictions = Table(
    "predictions",
    metadata,
    Column("sequence", Serial, primary_key=True, autoincrement=True),
    Column("tenant", String(64), nullable=False),
    Column("endpoint", String(128), nullable=False),
    Column("id", String(128), nullable=False),
    Column("version", Integer, nullable=False),
    Column("arm", SmallInteger, nullable=False, server_default="0"),
    Column("scores", LargeBinary, nullable=False),
    Column("event_at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    # Numbers of ``segment_levels`` as little-endian uint16, those of a row side by side; none where the endpoint names no segments.
    Column("cells", LargeBinary),
    sa.Index("uq_predictions_id", "tenant", "endpoint", "id", unique=True),
)

# Scores that have met their label, numbered from 0 within their version in the order in which the labels came.
labelled = Table(
    "labelled",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("id", String(128), nullable=False),
    Column("row", Integer, nullable=False),
    Column("score", Float, nullable=False),
    Column("label", Float, nullable=False),
    Column("value", Float),
    Column("arm", SmallInteger, nullable=False, server_default="0"),
    Column("event_at", BigInteger, nullable=False),
    Column("labelled_event_at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("cells", LargeBinary),  # those of its row
    sa.Index("ix_labelled_received_at", "received_at"),
)

# Copies of requests that a shadow scored: its scores, and those that the client was given for the same rows. They stand apart, so that
# nothing that is about answers can count them by mistake.
shadow_predictions = Table(
    "shadow_predictions",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("id", String(128), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("scores", LargeBinary, nullable=False),
    Column("answers", LargeBinary, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    sa.Index("ix_shadow_predictions_received_at", "received_at"),
)

# Copies that have met their label, numbered within their version as the labelled answers are.
shadow_labels = Table(
    "shadow_labels",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("id", String(128), nullable=False),
    Column("row", Integer, nullable=False),
    Column("score", Float, nullable=False),
    Column("answered", Float, nullable=False),
    Column("label", Float, nullable=False),
    Column("value", Float),
    Column("received_at", BigInteger, nullable=False),
    sa.Index("ix_shadow_labels_received_at", "received_at"),
)

# How a shadow's scores differ from the answers: moments of (score - answer), and the sizes in the buckets of ``stats.score_buckets``.
shadow_differences = Table(
    "shadow_differences",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("flips", BigInteger, nullable=False),
    Column("mean", Float, nullable=False),
    Column("m2", Float, nullable=False),
    Column("worst", Float, nullable=False),
    Column("sizes", LargeBinary, nullable=False),
)

feedback = Table(
    "feedback",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("id", String(128), primary_key=True),
    Column("row", Integer, primary_key=True),
    Column("label", Float, nullable=False),
    Column("value", Float),
    Column("event_at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("matched", Boolean, nullable=False),
    sa.Index("ix_feedback_waiting", "tenant", "endpoint", "matched", "sequence"),
)

feedback_counts = Table(
    "feedback_counts",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("received", BigInteger, nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
)

performance = Table(
    "performance",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("stop", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("task", String(16), nullable=False),
    Column("positives", BigInteger, nullable=False),
    Column("first_event", BigInteger, nullable=False),
    Column("last_event", BigInteger, nullable=False),
    Column("closed_at", BigInteger, nullable=False),
    Column("label_age_s", Float, nullable=False),
    Column("coverage", Float, nullable=False),
    Column("early_labels", BigInteger, nullable=False),
    Column("scores", sa.JSON, nullable=False),
)

# The levels of an endpoint's segments that are followed, numbered from 1; 0 is the endpoint as a whole and has no row.
segment_levels = Table(
    "segment_levels",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("segment", String(512), nullable=False),
    Column("level", String(128), nullable=False),
)

# What came for a level of a segment (0: for the endpoint) in a stretch of time. ``strange`` counts values that are missing, out of range
# and unseen, by input. ``matured``: labels that have come; ``measured``: those that ``measures`` were made of, at ``measured_at``.
segment_windows = Table(
    "segment_windows",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("length", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("latency", LargeBinary, nullable=False),
    Column("scores", LargeBinary, nullable=False),
    Column("strange", LargeBinary, nullable=False),
    Column("matured", BigInteger, nullable=False),
    Column("measured", BigInteger, nullable=False),
    Column("measured_at", BigInteger, nullable=False),
    Column("measures", sa.JSON, nullable=False),
    sa.Index("ix_segment_windows_due", "tenant", "endpoint", "measured", "matured"),
    sa.Index("ix_segment_windows_start", "start"),
)

# What the detectors of risen loss remember of a version: how far they have read its labels, and what they hold.
loss_watches = Table(
    "loss_watches",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("next", BigInteger, nullable=False),
    Column("state", sa.JSON, nullable=False),
)

log_files = Table(
    "log_files",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("path", String(512), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("first_event", BigInteger, nullable=False),
    Column("last_event", BigInteger, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("tenant", String(64), nullable=False),
    Column("endpoint", String(128), nullable=False),
    Column("version", Integer),
    Column("kind", String(32), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("evidence", sa.JSON, nullable=False),
    Column("command", Text, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("event_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("looks", Integer, nullable=False),
    # Alerts of one endpoint and kind that were open together; what people are told is of it. ``raised_at``: opened, or grown worse.
    Column("incident", String(32), nullable=False),
    Column("raised_at", BigInteger, nullable=False),
    Column("acknowledged_at", BigInteger),
    Column("acknowledged_by", String(128), nullable=False),
    Column("note", Text, nullable=False),
    sa.Index("ix_alerts_open", "tenant", "endpoint", "kind", "state"),
    sa.Index("ix_alerts_incident", "incident"),
)

# Whom alerts are told to. ``config`` names secrets by where they are found, never by what they are. ``origin``: what declares it; empty of
# one that somebody added. The tenant ``*``: it is told of every tenant's.
alert_routes = Table(
    "alert_routes",
    metadata,
    _tenant(),
    Column("name", String(64), primary_key=True),
    Column("channel", String(16), nullable=False),
    Column("config", sa.JSON, nullable=False),
    Column("endpoint", String(128), nullable=False),
    Column("kinds", sa.JSON, nullable=False),
    Column("severity", String(16), nullable=False),
    Column("after_s", Float, nullable=False),
    Column("per_hour", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("origin", String(32), nullable=False),
)

# The outbox: what a route is to be told, written with the alert. A delivery under way has its ``due_at`` moved to when it counts as lost.
alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("tenant", String(64), nullable=False),
    Column("route", String(64), nullable=False),
    Column("incident", String(32), nullable=False),
    Column("event", String(16), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("key", String(32), nullable=False),
    Column("notice", sa.JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    sa.Index("ix_alert_deliveries_state", "state", "tenant", "route", "incident", "id"),
    sa.Index("ix_alert_deliveries_incident", "incident", "route", "id"),
    sa.Index("ix_alert_deliveries_route", "tenant", "route", "created_at"),
)

# Alerts that match are told to nobody until ``ends_at``. An empty pattern matches all.
alert_silences = Table(
    "alert_silences",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("tenant", String(64), nullable=False),
    Column("endpoint", String(128), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("version", Integer),
    Column("reason", Text, nullable=False),
    Column("starts_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
)

# Requests of an endpoint that has objectives, by minute: what error budgets are counted from.
objective_minutes = Table(
    "objective_minutes",
    metadata,
    _tenant(),
    Column("endpoint", String(128), primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("slow", BigInteger, nullable=False),
)

retrainings = Table(
    "retrainings",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("endpoint", String(128), nullable=False),
    Column("model", String(128), nullable=False),
    Column("trigger", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("step", String(32), nullable=False),
    Column("detail", sa.JSON, nullable=False),
    Column("champion", Integer, nullable=False),
    Column("challenger", Integer),
    Column("rollout", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    sa.Index(
        "uq_retrainings_active",
        "tenant",
        "endpoint",
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    ),
)

# Replays of the prediction log through a candidate. ``seen_at`` is when the control role that runs it last said so.
backtests = Table(
    "backtests",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("tenant", String(64), nullable=False),
    Column("endpoint", String(128), nullable=False),
    Column("candidate", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("progress", Float, nullable=False),
    Column("asked", sa.JSON, nullable=False),
    Column("report", sa.JSON),
    Column("error", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("created_by", String(128), nullable=False),
    sa.Index(
        "uq_backtests_active",
        "tenant",
        "endpoint",
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    ),
)

# Sources of the cache that were declared through the API; those of predis.toml have no row.
cache_sources = Table(
    "cache_sources",
    metadata,
    _tenant(),
    Column("name", String(64), primary_key=True),
    Column("declared", sa.JSON, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("changed_by", String(128), nullable=False),
)

# Writes that were acknowledged and that their source does not have yet (write-behind), in the order of ``id``. ``value`` is that of a key
# (kind ``set``), fields of a hash as JSON (``fields``), or nothing (``delete``). ``error`` says why the source did not take it;
# what is ``set_aside`` is not tried again.
cache_writes = Table(
    "cache_writes",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("tenant", String(64), nullable=False),
    Column("source", String(64), nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("set_aside", Boolean, nullable=False),
    sa.Index("ix_cache_writes_source", "tenant", "source", "set_aside", "id"),
    sa.Index("ix_cache_writes_key", "key", "id"),
)

# Which worker works off a source's queue, until when if it is not heard of again.
cache_drains = Table(
    "cache_drains",
    metadata,
    _tenant(),
    Column("source", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", BigInteger, nullable=False),
)
