"""What exporters are given, and what each of them is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from predis.errors import PredisError, Unavailable
from predis.metrics import Metric
from predis.metrics.exposition import Labels

Tags = tuple[tuple[str, str], ...]
Request = TypeVar("Request")

SEVERITIES = ("info", "warning", "critical", "emergency")  # rising


@dataclass(frozen=True, slots=True)
class Sample:
    """One series at the end of a batch's time.

    ``delta``: what was added within that time; ``total``: what was added since ``Batch.origin_ns``. Of a gauge both are its value. A
    histogram's are the counts of its buckets, of what lies above them, and the sum of the values, as in its file.
    """

    metric: Metric
    labels: Labels
    delta: tuple[float, ...]
    total: tuple[float, ...]

    @property
    def idle(self) -> bool:
        """Nothing was added: who takes deltas need not hear of it."""
        return self.metric.kind != "gauge" and not any(self.delta)


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """What happened to an incident, for a backend's time line. ``incident`` is the same from its beginning to its end."""

    at_ns: int
    incident: str
    tenant: str
    endpoint: str
    kind: str
    severity: str
    title: str
    text: str
    resolved: bool = False

    @property
    def labels(self) -> Tags:
        known = {
            "tenant": self.tenant,
            "endpoint": self.endpoint,
            "kind": self.kind,
            "severity": self.severity,
        }
        return tuple((name, value) for name, value in known.items() if value)


@dataclass(frozen=True, slots=True)
class Health:
    """How an endpoint is: the worst severity of its open alerts; empty where none is open."""

    tenant: str
    endpoint: str
    severity: str = ""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What happened from ``began_ns`` to ``at_ns``, in nanoseconds since 1970. Totals count from ``origin_ns``."""

    origin_ns: int
    began_ns: int
    at_ns: int
    samples: tuple[Sample, ...] = ()
    notices: tuple[Notice, ...] = ()
    health: tuple[Health, ...] = ()


class Exporter(ABC, Generic[Request]):
    """One backend. For one thread.

    A batch becomes requests as small as the backend wants them (``encode``, pure), and each is delivered once: a batch that is sent
    again after a failure goes on with the request that failed, so that nothing is counted twice.
    """

    name: str
    takes_notices: ClassVar[bool] = False  # of incidents

    def __init__(self) -> None:
        self._batch: Batch | None = None
        self._requests: deque[Request] = deque()

    @abstractmethod
    def encode(self, batch: Batch) -> Iterable[Request]:
        """The batch as requests."""

    @abstractmethod
    def deliver(self, request: Request) -> None:
        """Hand over one request, within the time limit.

        Raises:
            Unavailable: it may be taken later.
            PredisError: it will never be taken.
        """

    def send(self, batch: Batch) -> None:
        """Deliver a batch.

        Raises:
            Unavailable: send the same batch again later.
            PredisError: part of it was refused for good; the rest was delivered.
        """
        if batch is not self._batch:
            self._requests = deque(self.encode(batch))
            self._batch = batch
        refused: PredisError | None = None
        while self._requests:
            try:
                self.deliver(self._requests[0])
            except Unavailable:
                raise
            except PredisError as error:
                refused = error
            self._requests.popleft()
        self._batch = None
        if refused is not None:
            raise refused

    def close(self) -> None:
        """Let go of connections."""
