"""The ONE table of settings. Environment, ``predis.toml``, command-line flags and the reference page are all read off it.

A setting is a field of ``Settings``: name, type, default, unit and help stand together, and nowhere else. Precedence, low to
high: default, ``predis.toml`` in the working folder (or ``PREDIS_CONFIG``), ``PREDIS_<NAME>`` in the environment, flags.

Beside the settings of this installation, ``predis.toml`` may name others: each ``[environments.NAME]`` is an ``Environment``. What
stands under ``[alerts]`` is read by alerting, ``[cache]`` by the cache (``section``).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from predis.errors import InvalidSetting

ENV_PREFIX = "PREDIS_"
CONFIG_FILE = "predis.toml"
_ENVIRONMENTS, ALERTS, CACHE = "environments", "alerts", "cache"
_SECTIONS = (_ENVIRONMENTS, ALERTS, CACHE)  # parts of the file that are no settings
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


def _setting(default: Any, text: str, *, unit: str = "", **limits: Any) -> Any:
    """A row of the table. Limits are ``low`` and ``high`` of a number, ``choices`` of a text, ``several`` of a text with commas."""
    return field(default=default, metadata={"help": text, "unit": unit, **limits})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one process, typed and checked. ``load`` builds it; ``describe`` lists it."""

    # fmt: off
    home: Path = _setting(Path(".predis"), "Folder of a local installation; copying it is a backup.")
    state_url: str = _setting("", "SQLAlchemy URL of the state database. Empty: a SQLite file in the home folder.")
    artifacts_url: str = _setting("", "fsspec URL of the artifact store. Empty: a folder in the home folder.")
    host: str = _setting("127.0.0.1", "Address to listen on. Anything but loopback needs API keys, or insecure.")
    insecure: bool = _setting(False, "Allow listening beyond loopback without API keys.")
    control_port: int = _setting(8000, "Port of the control API and the console.", low=1, high=65535)
    http_port: int = _setting(8080, "Port of predictions over HTTP.", low=1, high=65535)
    grpc_port: int = _setting(8081, "Port of predictions over gRPC; 0: no gRPC.", low=0, high=65535)
    workers: int = _setting(2, "Serving processes that share the HTTP port.", low=1, high=256)
    log_format: str = _setting("text", "How log lines look: text or json.", choices=("text", "json"))
    log_level: str = _setting(
        "info", "Least severe log line that is written: debug, info, warning or error.",
        choices=("debug", "info", "warning", "error"),
    )
    access_log: bool = _setting(False, "Whether serving logs a line for each request.")
    otel_endpoint: str = _setting(
        "", "Base URL of an OpenTelemetry collector (OTLP over HTTP). Empty: OTEL_EXPORTER_OTLP_ENDPOINT, or no traces."
    )
    otel_sample_ratio: float = _setting(1.0, "Share of requests that are traced where the caller has not decided.", low=0, high=1)

    exporters: str = _setting(
        "", "What metrics and alerts are sent to, separated by commas: cloudwatch, datadog, dogstatsd, newrelic, otlp, statsd."
    )
    export_interval_s: float = _setting(15.0, "How often metrics are sent.", unit="s", low=0.1)
    export_timeout_s: float = _setting(5.0, "Longest that sending waits for an answer.", unit="s", low=0.1)
    export_metrics: str = _setting(
        "", "Which metrics are sent: names, or patterns such as predis_request*, separated by commas. Empty: all."
    )
    export_tags: str = _setting("", "Tags of all that is sent, such as environment=production,team=risk.")
    statsd_address: str = _setting("udp://127.0.0.1:8125", "Where statsd and dogstatsd listen: udp://HOST:PORT or unix:///PATH.")
    datadog_url: str = _setting("", "URL of Datadog's API. Empty: that of the site in DD_SITE. The key is DD_API_KEY.")
    newrelic_url: str = _setting("https://otlp.nr-data.net", "URL of New Relic's OTLP endpoint. The key is NEW_RELIC_LICENSE_KEY.")
    cloudwatch_namespace: str = _setting("Predis", "CloudWatch namespace that metrics are put into.")

    max_body_bytes: int = _setting(16 << 20, "Largest request body.", unit="bytes", low=1024)
    max_batch_rows: int = _setting(10_000, "Most rows in one inference request.", unit="rows", low=1)
    max_tensors: int = _setting(4_096, "Most input tensors in one inference request.", low=1)
    max_nesting: int = _setting(8, "Deepest nesting of a tensor's 'data'.", low=1, high=64)
    max_header_bytes: int = _setting(64 << 10, "Largest head of an HTTP request.", unit="bytes", low=1024)
    max_pending: int = _setting(512, "Requests one worker works on at once; more are shed with 503.", low=1)
    max_wait_ms: float = _setting(
        1_000.0, "Longest a request may be expected to wait for its turn; beyond it new ones are shed with 503.", unit="ms", low=1
    )
    tenant_pending: int = _setting(0, "Requests of one tenant that one worker works on at once; 0: no limit.", low=0)
    inline_predict_ms: float = _setting(
        2.0, "Predictions expected to take longer than this run in a thread, off the event loop.", unit="ms", low=0
    )
    batch_rows: int = _setting(256, "Most rows that waiting requests are joined to in one prediction.", unit="rows", low=1)
    batch_ms: float = _setting(20.0, "Longest that one joined prediction may be expected to take.", unit="ms", low=0)
    predict_threads: int = _setting(2, "Predictions one worker runs at once off the event loop, of different versions.", low=1, high=64)
    valkey_url: str = _setting(
        "", "URL of the Valkey or Redis behind the cache, also for endpoints that keep their predictions there: redis://, rediss://, "
        "unix://, redis+sentinel://host,host/name or, for the cache alone, redis+cluster://host,host. Empty: the embedded Valkey (extra "
        "cache), started by this installation.",
    )
    cache_timeout_ms: float = _setting(
        5.0, "Longest a request waits for that Valkey; what takes longer is predicted.", unit="ms", low=0.1, high=1_000
    )
    cache_port: int = _setting(6380, "Port of the cache gateway, which speaks the Redis protocol; 0: no gateway.", low=0, high=65535)
    cache_workers: int = _setting(1, "Gateway processes that share the cache port.", low=1, high=256)
    cache_memory_bytes: int = _setting(256 << 20, "Memory of the embedded Valkey's data.", unit="bytes", low=1 << 20)
    cache_eviction: str = _setting(
        "allkeys-lru", "What the embedded Valkey does when that is full: a maxmemory-policy, or noeviction.",
        choices=("allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl",
                 "noeviction"),
    )
    cache_persist: bool = _setting(
        True, "Whether the embedded Valkey writes its data to the home folder, so that it is there again after a restart."
    )
    cache_connections: int = _setting(100_000, "Connections that one gateway worker keeps open; more are refused.", low=1)
    cache_tls_cert: str = _setting("", "File of the certificate (PEM, with its chain) of the cache port. Empty: no TLS there.")
    cache_tls_key: str = _setting("", "File of that certificate's key. Empty: it stands in the same file.")
    cache_tls_client_ca: str = _setting("", "File of the authorities whose certificates clients of the cache port must show. Empty: none.")
    cache_observe: float = _setting(
        0.001, "Share of a core that a gateway worker may spend on telling the learner what is read; 0: nothing is told.", low=0, high=1
    )
    cache_hold_back: float = _setting(
        0.05, "Share of the keys that prefetching foretells which is not loaded, to measure the gain; 1: none is, prefetching is off.",
        low=0.001, high=1,
    )
    cache_train_hours: float = _setting(
        24.0, "Age at which the cache's predictor is trained anew, if it was read meanwhile; 0: never for its age.", unit="hours", low=0
    )
    cache_predictor_models: str = _setting(
        "", "Learned models that may add to the tables of the cache's predictor when a version is trained, separated by commas: boosting "
        "(extra lightgbm), lstm (extras torch, onnx). Empty: none.", several=("boosting", "lstm"),
    )
    cache_trial_share: float = _setting(
        0.5, "Share of the cache's keys with which a new version of the predictor is tried.", low=0.01, high=0.9
    )
    cache_export_bytes: int = _setting(
        256 << 20, "Parquet files of what was read from the cache; the oldest are deleted. 0: none are written.", unit="bytes", low=0
    )
    cache_export_days: float = _setting(7.0, "How long these files are kept, as far as there is room; 0: any.", unit="days", low=0)
    cache_ring_events: int = _setting(
        1 << 20, "Events that wait for the learner, for each gateway worker, at 128 bytes; a power of two.", low=1 << 10, high=1 << 26
    )
    capture: bool = _setting(True, "Whether predictions are kept for monitoring; off only to measure what keeping them costs.")
    capture_columns: int = _setting(1_024, "Inputs with more values a row than this are not kept; their scores are.", low=0)
    max_connections: int = _setting(10_000, "HTTP connections one worker keeps open; more are refused with 503.", low=1)
    max_held_bytes: int = _setting(
        512 << 20, "Requests that come in parts, over all connections of one worker; past it more are refused with 503.",
        unit="bytes", low=1 << 20,
    )
    keep_alive_s: float = _setting(75.0, "How long an idle connection stays open.", unit="s", low=1)
    read_timeout_s: float = _setting(30.0, "How long a client may take to send one request.", unit="s", low=1)
    route_poll_ms: int = _setting(100, "How often a worker looks for a new Route.", unit="ms", low=10)
    drain_s: float = _setting(3.0, "How long a stopping server finishes accepted requests.", unit="s", low=0)

    journal_segment_bytes: int = _setting(8 << 20, "Size at which a journal segment is sealed.", unit="bytes", low=1 << 16)
    journal_limit_bytes: int = _setting(
        1 << 30, "Journal kept per worker when nobody reads it; past it the oldest is dropped and counted.",
        unit="bytes", low=1 << 17,
    )
    ingest_ms: int = _setting(250, "How often control reads the journal.", unit="ms", low=10)
    rollout_tick_ms: int = _setting(100, "How often control looks at running rollouts.", unit="ms", low=10)
    check_ms: int = _setting(500, "How often control matures labels and checks monitors.", unit="ms", low=10)
    prediction_days: int = _setting(400, "How long predictions wait for their labels, and logs are kept.", unit="days", low=1)
    history_seconds_h: float = _setting(1.0, "Age at which traffic by the second is merged into minutes.", unit="h", low=0.1)
    history_minutes_h: float = _setting(
        48.0, "Age at which traffic by the minute is merged into hours, and drift windows of an hour are joined.", unit="h", low=1
    )
    history_hours_h: float = _setting(
        1_440.0, "Age at which traffic by the hour is merged into days, and drift windows of a day are joined.", unit="h", low=1
    )
    history_days_h: float = _setting(87_600.0, "Age at which traffic by the day, and performance, are dropped.", unit="h", low=24)

    window_rows: int = _setting(5_000, "Predictions in one drift window.", unit="rows", low=100)
    span_s: float = _setting(3_600.0, "Length of a window by time, of an endpoint and of each level of its segments.", unit="s", low=1)
    label_window_rows: int = _setting(4_000, "Matured labels in one performance window.", unit="rows", low=100)
    decay_margin: float = _setting(0.01, "AUC lost against the reference before it counts as decay.", low=0, high=0.5)
    decay_share: float = _setting(0.1, "Share by which a regressor's mean absolute error must rise before it counts as decay.", low=0)
    decay_windows: int = _setting(2, "Performance windows in a row that must agree before an alert.", low=1)
    drift_alpha: float = _setting(0.001, "Chance of a false drift verdict per feature and window.", low=1e-9, high=0.5)
    drift_floor: float = _setting(0.02, "PSI below this is never called drift, however significant.", low=0)
    error_rate_limit: float = _setting(0.02, "Share of failed predictions in a minute that raises an alert.", low=0, high=1)
    latency_limit_ms: float = _setting(250.0, "p99 latency in a minute that raises an alert.", unit="ms", low=0)
    endpoint_down_s: float = _setting(6.0, "How long no worker answers before an endpoint counts as down.", unit="s", low=1)

    alert_secrets: str = _setting("", "Folder of files that hold secrets of alert routes. Empty: secrets in the home folder.")

    retrain_cooldown_s: float = _setting(3_600.0, "Least time from one retraining to the next that an alert starts.", unit="s", low=0)
    train_timeout_s: float = _setting(3_600.0, "How long a train function may run.", unit="s", low=1)
    train_memory_bytes: int = _setting(8 << 30, "Memory a train function may use.", unit="bytes", low=1 << 26)
    allow_code: bool = _setting(
        False, "Allow versions of the format 'python': code of whoever registers them, which runs here as the server."
    )
    inspect_timeout_s: float = _setting(60.0, "How long loading a model, or scoring a batch, may take at registration.", unit="s", low=1)
    inspect_memory_bytes: int = _setting(8 << 30, "Address space that a model may use at registration.", unit="bytes", low=1 << 28)
    # fmt: on

    @property
    def database_url(self) -> str:
        return self.state_url or f"sqlite:///{self.home / 'state.sqlite'}"

    @property
    def store_url(self) -> str:
        return self.artifacts_url or str(self.home / "artifacts")

    @property
    def journal_folder(self) -> Path:
        return self.home / "journal"

    @property
    def secrets_folder(self) -> Path:
        return Path(self.alert_secrets) if self.alert_secrets else self.home / "secrets"

    @property
    def predictor_models(self) -> tuple[str, ...]:
        """What ``cache_predictor_models`` names, each once."""
        return tuple(dict.fromkeys(_names(self.cache_predictor_models)))

    @property
    def valkey_folder(self) -> Path:
        return self.home / "valkey"

    @property
    def metrics_folder(self) -> Path:
        return self.home / "metrics"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Another installation, to which versions are promoted: ``[environments.NAME]`` in ``predis.toml``."""

    name: str
    control: str = _setting("", "URL of its control API.")
    key_env: str = _setting(
        "", "Environment variable that holds an API key of it; the key itself stands in no file."
    )
    requires: tuple[str, ...] = _setting((), "What a version must meet here before it is moved there.")


@dataclass(frozen=True)
class Described:
    """One row of the settings table, as text."""

    name: str
    type: str
    default: str
    unit: str
    help: str
    environment: str
    flag: str


def environments(
    *, environ: Mapping[str, str] | None = None, config: Path | None = None
) -> dict[str, Environment]:
    """The environments of the TOML file, by name.

    Raises:
        InvalidSetting: one is not described as ``Environment`` says.
    """
    environ = os.environ if environ is None else environ
    path = config or _config_path(environ)
    found = _table(path).get(_ENVIRONMENTS, {}) if path else {}
    if not isinstance(found, Mapping):
        raise InvalidSetting(f"{path}: {_ENVIRONMENTS} must be tables, as in [{_ENVIRONMENTS}.staging]")
    return {
        name: _environment(name, entry, source=f"{path}: {_ENVIRONMENTS}.{name}")
        for name, entry in found.items()
    }


def _environment(name: str, entry: Any, *, source: str) -> Environment:
    rows = {f.name for f in fields(Environment)} - {"name"}
    if not isinstance(entry, Mapping) or not rows >= entry.keys():
        raise InvalidSetting(f"{source} must be a table of {', '.join(sorted(rows))}")
    requires = entry.get("requires", [])
    if not isinstance(requires, list) or not all(isinstance(demand, str) for demand in requires):
        raise InvalidSetting(f"{source}.requires must be a list of texts")
    for text in ("control", "key_env"):
        if not isinstance(entry.get(text, ""), str):
            raise InvalidSetting(f"{source}.{text} must be a text")
    if not entry.get("control"):
        raise InvalidSetting(f"{source}.control must be the URL of the environment's control API")
    return Environment(
        name=name, control=entry["control"], key_env=entry.get("key_env", ""), requires=tuple(requires)
    )


def section(
    name: str, *, environ: Mapping[str, str] | None = None, config: Path | None = None
) -> tuple[str, Any]:
    """A part of the TOML file that is no setting: where it stands, for messages, and what it says; an empty table where it is not there.

    Raises:
        InvalidSetting: the file cannot be read.
    """
    path = config or _config_path(os.environ if environ is None else environ)
    return f"{path or CONFIG_FILE}: {name}", _table(path).get(name, {}) if path else {}


def describe() -> tuple[Described, ...]:
    """The settings table in order, for help texts, the reference page and the test that compares them."""
    return tuple(
        Described(
            name=f.name,
            type=str(f.type),
            default=str(f.default),
            unit=f.metadata["unit"],
            help=f.metadata["help"],
            environment=ENV_PREFIX + f.name.upper(),
            flag="--" + f.name.replace("_", "-"),
        )
        for f in fields(Settings)
    )


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Settings:
    """Settings from file, environment and flags.

    Args:
        flags: values given on the command line; ``None`` values are ignored.
        environ: the environment, ``os.environ`` by default.
        config: path of the TOML file; by default ``PREDIS_CONFIG``, or ``predis.toml`` in the working folder.

    Raises:
        InvalidSetting: an unknown name, a value of the wrong type, or one outside its range.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    values.update(_from_file(config or _config_path(environ)))
    known = {f.name for f in fields(Settings)}
    for name in known:
        text = environ.get(ENV_PREFIX + name.upper())
        if text is not None:
            values[name] = _parse(name, text, source=f"environment variable {ENV_PREFIX}{name.upper()}")
    for name, value in (flags or {}).items():
        if value is not None:
            values[name] = _parse(name, value, source=f"flag --{name.replace('_', '-')}")
    settings = Settings(**values)
    return replace(settings, home=settings.home.expanduser().absolute())


def _config_path(environ: Mapping[str, str]) -> Path | None:
    named = environ.get(ENV_PREFIX + "CONFIG")
    if named:
        if not Path(named).is_file():
            raise InvalidSetting(f"PREDIS_CONFIG names {named}, which is not a file")
        return Path(named)
    return Path(CONFIG_FILE) if Path(CONFIG_FILE).is_file() else None


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    rows = ((name, value) for name, value in _table(path).items() if name not in _SECTIONS)
    return {name: _parse(name, value, source=str(path)) for name, value in rows}


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidSetting(f"{path} cannot be read as TOML: {error}") from error


def _parse(name: str, value: Any, *, source: str) -> Any:
    """A value as the field's type, or an error that names its source and the legal form."""
    found = {f.name: f for f in fields(Settings)}.get(name)
    if found is None:
        raise InvalidSetting(f"{source}: there is no setting {name!r}; `predis doctor --settings` lists them")
    try:
        parsed = _convert(value, type(found.default))
    except (ValueError, TypeError, OverflowError):
        raise InvalidSetting(f"{source}: {name} must be of type {found.type}, got {value!r}") from None
    if "choices" in found.metadata or "several" in found.metadata:
        parsed = parsed.lower()
    _check(parsed, found.metadata, what=f"{source}: {name}")
    return parsed


def _check(parsed: Any, limits: Mapping[str, Any], *, what: str) -> None:
    choices = limits.get("choices")
    if choices and parsed not in choices:
        raise InvalidSetting(f"{what} must be one of {', '.join(choices)}, got {parsed!r}")
    several = limits.get("several")
    if several and not set(_names(parsed)) <= set(several):
        raise InvalidSetting(
            f"{what} must be some of {', '.join(several)}, separated by commas, or empty; got {parsed!r}"
        )
    low, high = limits.get("low"), limits.get("high")
    # Written so that NaN, which compares with nothing, is out of range.
    if not (low is None or parsed >= low) or not (high is None or parsed <= high):
        legal = f"at least {low}" if high is None else f"between {low} and {high}"
        raise InvalidSetting(f"{what} must be {legal}, got {parsed}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _convert(value: Any, wanted: type) -> Any:
    if wanted is bool:
        text = str(value).strip().lower()
        if text not in _TRUE | _FALSE:
            raise ValueError(text)
        return text in _TRUE
    if wanted is int and isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    if isinstance(value, bool) and wanted in (int, float):
        raise TypeError(value)
    if wanted in (int, float):
        return wanted(value)
    if not isinstance(value, str | Path):
        raise TypeError(value)
    return Path(value) if issubclass(wanted, Path) else str(value)
