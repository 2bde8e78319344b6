"""What a load test is told: whom to ask, with what, how much, and for how long. Plain data that travels to other processes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

DEFAULT_CONNECTIONS = 64
OPEN_CONNECTIONS = 512


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server, and the requests to rotate over, each ready to be written.

    ``requests`` are whole HTTP/1.1 requests, or encoded ``ModelInferRequest`` messages where ``grpc`` is set.
    """

    host: str
    port: int
    requests: tuple[bytes, ...] = field(repr=False)
    tls: bool = False
    grpc: bool = False
    key: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much is asked of the server, by all processes together.

    Without ``rate`` the loop is closed: each of ``connections`` sends its next request when the last one is answered. With it the loop is
    open: requests fall due at ``rate`` a second whatever the server does, and go out on the connection that has been free the longest.
    """

    connections: int
    duration_s: float
    rate: float | None = None
    poisson: bool = True
    warmup_s: float = 1.0
    timeout_s: float = 10.0

    def share(self, index: int, count: int) -> Load:
        """The part of the ``index``-th of ``count`` processes."""
        connections = self.connections // count + (index < self.connections % count)
        rate = None if self.rate is None else self.rate / count
        return replace(self, connections=connections, rate=rate)

    @property
    def name(self) -> str:
        """
        >>> Load(connections=64, duration_s=10).name, Load(connections=9, duration_s=10, rate=2500).name
        ('64 connections', '2,500/s')
        """
        if self.rate is None:
            return f"{self.connections:,} connection{'s' * (self.connections != 1)}"
        return f"{self.rate:,.10g}/s"
