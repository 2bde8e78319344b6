"""StatsD, and Datadog's dialect of it: lines in datagrams, over UDP or a Unix socket.

Counters are sent as what was added. Histograms go as one line for each bucket that something fell into: a value of that bucket,
with the sample rate that makes it count as often as it was seen (timers in StatsD, distributions in DogStatsD). So traffic depends
on the number of series, never on that of requests.

https://github.com/statsd/statsd/blob/master/docs/metric_types.md,
https://docs.datadoghq.com/developers/dogstatsd/datagram_shell/
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from predis.errors import InvalidSetting, Unavailable
from predis.metrics.exposition import Labels
from predis.monitoring.exporters.batch import Batch, Exporter, Health, Notice, Sample, Tags
from predis.monitoring.exporters.histograms import spread
from predis.monitoring.exporters.naming import tags_of
from predis.settings import Settings

PORT = 8125
UDP_BYTES = 1_432  # fits an Ethernet frame
UNIX_BYTES = 8_192
_LONGEST_EVENT_BYTES = 4_096
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")
_NO_TAG = re.compile(r"[\s|,#]")
_MS_PER_S = 1000.0

ALERT_TYPES = {"emergency": "error", "critical": "error", "warning": "warning"}  # the rest: info
CHECK_STATES = {"emergency": 2, "critical": 2, "warning": 1}  # CRITICAL, WARNING; the rest: 0, OK
CHECK_NAME = "predis.endpoint"


class StatsD(Exporter[bytes]):
    """Plain StatsD, which knows no tags: label values are appended to the name, ``predis_rows_total.TENANT.ENDPOINT.VERSION``.

    Args:
        address: ``udp://HOST:PORT`` or ``unix:///PATH``, a datagram socket.
        tags: their values stand before the name.
    """

    name = "statsd"

    def __init__(self, address: str, *, tags: Tags = (), timeout_s: float = 1.0) -> None:
        super().__init__()
        self._peer = _parsed(address)
        self._most_bytes = UNIX_BYTES if isinstance(self._peer, str) else UDP_BYTES
        self._tags = tags
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str]) -> StatsD:
        return cls(
            settings.statsd_address,
            tags=tags_of(settings.export_tags),
            timeout_s=settings.export_timeout_s,
        )

    def encode(self, batch: Batch) -> Iterator[bytes]:
        return _packed(self.lines(batch), self._most_bytes)

    def lines(self, batch: Batch) -> Iterator[str]:
        """The batch as lines of the protocol."""
        for sample in batch.samples:
            if not sample.idle:
                yield from self._sample(sample)

    def _sample(self, sample: Sample) -> Iterator[str]:
        name = self._name(sample)
        if sample.metric.kind == "counter":
            yield f"{name}:{sample.delta[0]:.15g}|c"
        elif sample.metric.kind == "gauge":
            if sample.delta[0] < 0:
                yield f"{name}:0|g"  # a sign would mean "add": a negative value has to be reached from zero
            yield f"{name}:{sample.delta[0]:.15g}|g"
        else:
            scale = _MS_PER_S if sample.metric.unit == "seconds" else 1.0
            for value, count in spread(sample.metric.buckets, sample.delta):
                yield f"{name}:{value * scale:.6g}|ms|@{1 / count:.10g}"

    def _name(self, sample: Sample) -> str:
        before = [value for _, value in self._tags]
        after = [value for _, value in sample.labels]
        return ".".join(_NO_NAME.sub("_", part) or "_" for part in (*before, sample.metric.name, *after))

    def deliver(self, request: bytes) -> None:
        try:
            if self._socket is None:
                self._socket = self._connected()
            self._socket.send(request)
        except OSError as error:
            self.close()
            raise Unavailable(f"{self.name} at {self._peer} takes nothing: {error}") from None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        family, peer = socket.AF_UNIX, self._peer
        if isinstance(peer, tuple):
            family, *_, peer = socket.getaddrinfo(*peer, type=socket.SOCK_DGRAM)[0]  # type: ignore[assignment]
        found = socket.socket(family, socket.SOCK_DGRAM)
        try:
            found.settimeout(self._timeout_s)
            found.connect(peer)
        except BaseException:
            found.close()
            raise
        return found


class DogStatsD(StatsD):
    """Datadog's dialect, for its agent: tags, distributions, events for alerts and a service check for each endpoint."""

    name = "dogstatsd"
    takes_notices = True

    def lines(self, batch: Batch) -> Iterator[str]:
        yield from super().lines(batch)
        yield from map(self._event, batch.notices)
        for health in batch.health:
            yield self._check(health, at_s=batch.at_ns // 1_000_000_000)

    def _sample(self, sample: Sample) -> Iterator[str]:
        name, tags = sample.metric.name, self._tagged(sample.labels)
        if sample.metric.kind == "histogram":
            for value, count in spread(sample.metric.buckets, sample.delta):
                yield f"{name}:{value:.6g}|d|@{1 / count:.10g}{tags}"
        else:
            kind = "c" if sample.metric.kind == "counter" else "g"
            yield f"{name}:{sample.delta[0]:.15g}|{kind}{tags}"

    def _tagged(self, labels: Labels) -> str:
        tags = ",".join(tag(name, value) for name, value in (*self._tags, *labels))
        return f"|#{tags}" if tags else ""

    def _event(self, notice: Notice) -> str:
        title, text = _escaped(notice.title), _escaped(notice.text)
        kind = "success" if notice.resolved else ALERT_TYPES.get(notice.severity, "info")
        return (
            f"_e{{{len(title.encode())},{len(text.encode())}}}:{title}|{text}|d:{notice.at_ns // 1_000_000_000}"
            f"|k:predis-{notice.incident}|s:predis|t:{kind}{self._tagged(notice.labels)}"
        )

    def _check(self, health: Health, *, at_s: int) -> str:
        tags = self._tagged((("tenant", health.tenant), ("endpoint", health.endpoint)))
        message = f"|m:worst open alert: {health.severity}" if health.severity else ""
        return f"_sc|{CHECK_NAME}|{CHECK_STATES.get(health.severity, 0)}|d:{at_s}{tags}{message}"


def tag(name: str, value: str) -> str:
    """A tag as Datadog takes it, ``name:value``."""
    return _NO_TAG.sub("_", f"{name}:{value}")


def _escaped(text: str) -> str:
    """Text of an event: one line, and no bar, which would end it."""
    return text[: _LONGEST_EVENT_BYTES // 4].replace("\n", "\\n").replace("|", "/")


def _packed(lines: Iterable[str], most_bytes: int) -> Iterator[bytes]:
    """Lines in as few datagrams as they fit into. One that is longer than a datagram goes alone, for the network to divide."""
    waiting = b""
    for line in lines:
        encoded = line.encode()
        if waiting and len(waiting) + 1 + len(encoded) > most_bytes:
            yield waiting
            waiting = b""
        waiting = waiting + b"\n" + encoded if waiting else encoded
    if waiting:
        yield waiting


def _parsed(address: str) -> str | tuple[str, int]:
    """Path of a Unix socket, or host and port."""
    parts = urlsplit(address)
    try:
        if parts.scheme == "udp" and parts.hostname:
            return parts.hostname, parts.port or PORT
    except ValueError:
        pass  # the port is no number
    if parts.scheme == "unix" and parts.path and not parts.netloc:
        return parts.path
    raise InvalidSetting(f"statsd_address must be like udp://HOST:PORT or unix:///PATH, got {address!r}")
