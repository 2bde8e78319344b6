"""The kinds of alerts: what each means, where to look first, and how many looks open and close it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from predis.monitoring.alerting.hysteresis import Patience


@dataclass(frozen=True)
class Kind:
    """``meaning`` and ``look_at`` are for people; ``patience`` counts looks, of which the monitor takes one every ``check_ms``."""

    meaning: str
    look_at: str
    patience: Patience = Patience()


KINDS: Mapping[str, Kind] = {
    "performance": Kind(
        "a version's quality on matured labels fell below its reference",
        "what drifted, which segment lost most, and whether a retraining has begun (predis retrain --list)",
    ),
    "loss": Kind(
        "the loss of a version's newest labels rose at once",
        "whether one bad day explains it (weather, an outage elsewhere), and the next performance window, which tells for certain",
    ),
    "drift": Kind(
        "inputs of a version moved away from its reference profile",
        "the named inputs at their source: a unit, a default or a broken feed is more frequent than a changed world",
    ),
    "data_break": Kind(
        "an input broke: it vanished, turned constant, changed its type, or is full of what was never seen",
        "the pipeline that delivers the named input, and what was deployed there last",
    ),
    "errors": Kind(
        "too large a share of an endpoint's predictions failed",
        "the error of one prediction (predis predict), then whatever changed last: rollout, client, model library",
    ),
    "latency": Kind(
        "an endpoint answers too slowly",
        "rows in a request, the number of workers, and what else runs on the machine",
    ),
    "slo_availability": Kind(
        "failures use up an endpoint's error budget too fast",
        "since when requests fail (predis monitor), and whether a rollout began then",
    ),
    "slo_latency": Kind(
        "slow answers use up an endpoint's error budget too fast",
        "since when answers are slow (predis monitor), and whether traffic or the version changed then",
    ),
    "endpoint_down": Kind(
        "no worker answers for an endpoint",
        "whether the serving processes run, and what the log of predis up says last",
    ),
    "evidence": Kind(
        "records of predictions were lost before they could be read",
        "free space on the disk, and for how long control was away",
    ),
}
_UNKNOWN = Kind("something is wrong with an endpoint", "the endpoint (predis monitor)")


def kind_of(name: str) -> Kind:
    """A kind by its name; checks may find what the table does not know yet."""
    return KINDS.get(name, _UNKNOWN)
