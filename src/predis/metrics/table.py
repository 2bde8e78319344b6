"""The ONE table of metrics. Writers, exposition, the reference page and dashboards are all read off it.

A metric is a row of ``TABLE``: name, kind, unit, labels, buckets and help stand together, and nowhere else. Names follow
Prometheus: a base unit at the end, ``_total`` for counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

# Bounds of durations, in seconds: 100 us is a quick answer over loopback, 10 s is beyond every limit we set.
DURATIONS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
# Seconds, for what takes microseconds.
MOMENTS = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 5e-2)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 4_096.0, 16_384.0)


@dataclass(frozen=True)
class Metric:
    """One row.

    ``buckets``: upper bounds of a histogram's buckets, rising, each bound inside its bucket. ``by``: the label that tells the
    process apart; empty: the numbers of all processes are added up.
    """

    name: str
    kind: Kind
    help: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    by: str = ""

    @property
    def cells(self) -> int:
        """Numbers that one series of it takes: a value, or the count of each bucket, of what is above them, and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


_ENDPOINT = ("tenant", "endpoint")
_VERSION = ("tenant", "endpoint", "version")
_SOURCE = ("tenant", "source")

# fmt: off
_ROWS = (
    Metric(
        "predis_requests_total", "counter",
        "Inference requests by how they ended: ok, rejected (the client's fault), failed (the model's), shed (too much at once) "
        "or deadline (it passed).", labels=(*_VERSION, "outcome"),
    ),
    Metric("predis_rows_total", "counter", "Rows predicted.", "rows", _VERSION),
    Metric("predis_request_seconds", "histogram", "Time from a request's first byte to its answer.", "seconds", _VERSION, DURATIONS),
    Metric("predis_queue_seconds", "histogram", "Time a request waited for its prediction to begin.", "seconds", _VERSION, DURATIONS),
    Metric("predis_predict_seconds", "histogram", "Time the model took for one joined prediction.", "seconds", _VERSION, DURATIONS),
    Metric("predis_batch_rows", "histogram", "Rows in one joined prediction.", "rows", _VERSION, ROWS),
    Metric(
        "predis_last_request_time_seconds", "gauge", "When a version last answered, in seconds since 1970.", "seconds",
        _VERSION, by="worker",
    ),
    Metric("predis_cache_hits_total", "counter", "Requests answered from the prediction cache.", labels=_ENDPOINT),
    Metric("predis_cache_misses_total", "counter", "Requests that the prediction cache was asked for and did not have.", labels=_ENDPOINT),
    Metric(
        "predis_cache_waits_total", "counter",
        "Requests that waited for the same prediction, asked for by another, instead of having it made again.", labels=_ENDPOINT,
    ),
    Metric("predis_cache_bytes", "gauge", "Memory of kept predictions, of all workers.", "bytes", _ENDPOINT),
    Metric(
        "predis_cache_errors_total", "counter",
        "What went wrong with kept predictions: late (Valkey did not answer in time), connection, refused (it would not store), "
        "dropped (not stored for want of a connection) or damaged (not what was stored). Requests are answered all the same.",
        labels=("reason",),
    ),
    Metric(
        "predis_shadow_dropped_total", "counter",
        "Copies of requests that a shadow version did not predict, for want of room or because it was one no longer.", labels=_VERSION,
    ),
    Metric("predis_in_flight", "gauge", "Inference requests being worked on.", by="worker"),
    Metric("predis_connections", "gauge", "Open client connections.", by="worker"),
    Metric("predis_route", "gauge", "Number of the Route that a worker follows.", labels=_ENDPOINT, by="worker"),
    Metric("predis_version_loaded", "gauge", "1 where a worker has the version in memory.", labels=_VERSION, by="worker"),
    Metric("predis_journal_lost_total", "counter", "Predictions that were answered but whose record the disk did not take."),
    Metric("predis_access_log_dropped_total", "counter", "Lines of the access log that were dropped because nobody took them in time."),
    Metric("predis_spans_exported_total", "counter", "Spans that the collector of traces took."),
    Metric("predis_spans_dropped_total", "counter", "Spans that were dropped: the queue was full, or the collector took none."),

    Metric("predis_ingest_requests_total", "counter", "Requests that control read from the journal."),
    Metric("predis_ingest_lag_seconds", "gauge", "How long ago control had last read all that the journal held.", "seconds"),
    Metric("predis_journal_dropped_total", "counter", "Requests dropped from a journal before control read them.", labels=("stream",)),
    Metric("predis_alerts_open", "gauge", "Open alerts.", labels=("severity",)),
    Metric(
        "predis_alert_deliveries_total", "counter",
        "Tries to tell a route of an alert, by how they ended: sent, retried (it will be tried again) or failed (given up).",
        labels=("channel", "outcome"),
    ),
    Metric(
        "predis_alert_delivery_seconds", "histogram", "Time from a notice of an alert to the receiver's answer.", "seconds",
        ("channel",), DURATIONS,
    ),
    Metric("predis_alert_deliveries_waiting", "gauge", "Notices of alerts that wait to be taken by their receiver."),
    Metric(
        "predis_error_budget_left_ratio", "gauge", "Share of an objective's error budget that is left; below 0 where it is overspent.",
        labels=("tenant", "endpoint", "objective"),
    ),
    Metric("predis_export_batches_total", "counter", "Batches that an exporter's backend took.", labels=("exporter",)),
    Metric(
        "predis_export_dropped_total", "counter",
        "Batches that an exporter dropped: too many waited, or the backend refused what was in it.", labels=("exporter",),
    ),
    Metric("predis_export_failures_total", "counter", "Tries to send a batch that failed.", labels=("exporter",)),
    Metric("predis_export_waiting", "gauge", "Batches that wait to be sent.", labels=("exporter",)),
    Metric("predis_rollouts_total", "counter", "Rollouts that ended, by final state.", labels=("state",)),
    Metric("predis_retrainings_total", "counter", "Retraining runs that ended, by outcome.", labels=("outcome",)),

    Metric("predis_gateway_connections", "gauge", "Clients that are connected to the cache gateway.", by="worker"),
    Metric("predis_gateway_accepted_total", "counter", "Clients that connected to the cache gateway."),
    Metric("predis_gateway_refused_total", "counter", "Clients that the cache gateway refused: there were too many."),
    Metric("predis_gateway_commands_total", "counter", "Commands that clients sent to the cache gateway."),
    Metric("predis_gateway_received_bytes_total", "counter", "Bytes that clients sent to the cache gateway.", "bytes"),
    Metric("predis_gateway_sent_bytes_total", "counter", "Bytes that the cache gateway sent to clients.", "bytes"),
    Metric(
        "predis_gateway_upstream_errors_total", "counter",
        "What went wrong between the gateway and its Valkey: unreachable (a client could not be connected), lost (Valkey ended a "
        "connection that was in use) or broken (it sent what is no reply).", labels=("reason",),
    ),
    Metric(
        "predis_gateway_upstream_seconds", "histogram",
        "Time from sending a command to Valkey to its reply, of a sample of commands.", "seconds", buckets=DURATIONS,
    ),
    Metric(
        "predis_gateway_added_seconds", "histogram",
        "Time that the gateway itself worked on a command and its reply, of a sample of commands.", "seconds", buckets=MOMENTS,
    ),

    Metric(
        "predis_source_reads_total", "counter",
        "Reads of a source's keys by what was found in Valkey: hit, stale (answered, and loaded anew), miss (loaded, or waited for), or "
        "none (a miss that was answered from the marker that the source has no value).", labels=(*_SOURCE, "found"),
    ),
    Metric(
        "predis_source_loads_total", "counter",
        "Keys that a source was asked for, by how that ended: loaded, none (it has no value), failed (it gave no answer, or a wrong one) "
        "or shed (it was not asked: too much waits, or it is left alone).", labels=(*_SOURCE, "outcome"),
    ),
    Metric("predis_source_calls_total", "counter", "Calls of a source: one may be for many keys.", labels=_SOURCE),
    Metric("predis_source_call_seconds", "histogram", "Time that a source took for one call.", "seconds", _SOURCE, DURATIONS),
    Metric("predis_source_refreshes_total", "counter", "Values loaded anew while they were still there.", labels=_SOURCE),
    Metric(
        "predis_source_uncached_total", "counter", "Answers of a source that Valkey could not keep: it was away, or full.", labels=_SOURCE,
    ),
    Metric("predis_source_breaker_open", "gauge", "1 where a source is left alone because it failed.", labels=_SOURCE, by="worker"),
    Metric("predis_source_writes_total", "counter", "Writes to a source, by how they ended: written, queued, refused or failed.",
           labels=(*_SOURCE, "outcome")),
    Metric("predis_source_queue_writes", "gauge", "Writes that wait to be brought to a source.", labels=_SOURCE),
    Metric("predis_source_queue_age_seconds", "gauge", "How long ago the oldest of them was acknowledged.", "seconds", _SOURCE),
    Metric("predis_source_set_aside_writes", "gauge", "Writes that a source refused and that wait for a person.", labels=_SOURCE),

    Metric(
        "predis_prefetch_keys_total", "counter",
        "Keys that were foretold and not in the cache, by what became of them: used (prefetched and read), late (read before it had come), "
        "unread, or held back (not prefetched, to measure the gain).", labels=("outcome",),
    ),
    Metric(
        "predis_prefetch_dropped_total", "counter",
        "Keys that were foretold and not prefetched, by reason: queue (too many waited), source busy, budget, valkey (it did not answer) "
        "or failed (the source did).", labels=("reason",),
    ),
    Metric(
        "predis_predictor_version", "gauge", "Version of the cache's predictor that is champion, or challenger (on trial); 0: none.",
        labels=("role",),
    ),
    Metric(
        "predis_predictor_decisions_total", "counter",
        "Decisions about the predictor's versions: trial, promote, drop or roll back.", labels=("decision",),
    ),
    Metric(
        "predis_predictor_habits_psi", "gauge",
        "How far the shares of what is read from the cache have moved since the predictor's training: population stability index.",
    ),
    Metric("predis_learner_reads_total", "counter", "Reads of the cache that the learner was told of."),
    Metric(
        "predis_learner_dropped_total", "counter", "Reads of the cache that the learner was not told of, because a worker's ring was full.",
        labels=("worker",),
    ),
    Metric("predis_learner_waiting", "gauge", "Reads of the cache that wait for the learner."),
    Metric("predis_learner_exported_total", "counter", "Reads of the cache that were written to Parquet files."),
    Metric(
        "predis_learner_export_dropped_total", "counter", "Reads of the cache that were not, because the disk was too slow or full.",
    ),

    Metric("predis_process_resident_bytes", "gauge", "Memory of a process that is in RAM.", "bytes", by="process"),
    Metric("predis_process_cpu_seconds_total", "counter", "CPU time of a process, user and system.", "seconds", by="process"),
    Metric("predis_process_start_time_seconds", "gauge", "When a process was started, in seconds since 1970.", "seconds", by="process"),
    Metric("predis_process_open_fds", "gauge", "Open file descriptors of a process.", by="process"),
    Metric("predis_series_overflow_total", "counter", "Series that found no place; their numbers stand under the label value 'other'."),
)
# fmt: on

TABLE: Mapping[str, Metric] = {metric.name: metric for metric in _ROWS}
