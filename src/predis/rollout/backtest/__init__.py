"""Replay the prediction log through a candidate, before any user meets it: scores, flips, latency, quality, and what gates would say."""

from predis.rollout.backtest.jobs import Backtests
from predis.rollout.backtest.run import Parts
from predis.rollout.backtest.store import BacktestRow, BacktestStore

__all__ = ["BacktestRow", "BacktestStore", "Backtests", "Parts"]
