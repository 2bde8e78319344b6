"""A toy installation with a prediction log, for the tests of backtests."""

from __future__ import annotations

from typing import Any

from predis.rollout.backtest import BacktestRow
from predis.serving.route import Split
from tests import toys

PATIENCE_S = 60.0


def serve(installed: toys.Installation, *numbers: int, endpoint: str = toys.ENDPOINT) -> None:
    """Let versions answer an endpoint in equal shares."""
    endpoints = installed.platform.endpoints
    split = Split({number: 1.0 / len(numbers) for number in numbers})
    with installed.platform.database.write() as connection:
        endpoints.store.put_route(
            connection, endpoints.get(toys.TENANT, endpoint), route=split, reason="test", at=installed.clock.time_ns(), actor="test"
        )  # fmt: skip


def begin(
    installed: toys.Installation, candidate: int | str, *, tenant: str = toys.TENANT, **wanted: Any
) -> BacktestRow:
    given = {"candidate": candidate, "since": "7d", "rows": 200_000, "threshold": 0.5, **wanted}
    return installed.platform.backtests.start(tenant, toys.ENDPOINT, wanted=given, actor="test")


def ended(installed: toys.Installation, row: BacktestRow) -> BacktestRow:
    installed.platform.backtests.wait(row.id, timeout_s=PATIENCE_S)
    return installed.platform.backtests.get(toys.TENANT, row.id)


def report(installed: toys.Installation, candidate: int | str, **wanted: Any) -> dict[str, Any]:
    """The report of a backtest that must not fail."""
    installed.clock.advance(1)  # what was sent before lies in the window
    row = ended(installed, begin(installed, candidate, **wanted))
    assert row.state == "done", row.error
    assert row.report is not None
    return row.report


def error(installed: toys.Installation, candidate: int | str, **wanted: Any) -> str:
    """What a backtest that must fail says."""
    installed.clock.advance(1)
    row = ended(installed, begin(installed, candidate, **wanted))
    assert row.state == "failed"
    return row.error
