"""What an ensemble has learned, as lookup tables and as bytes.

``compiled`` is what a request path can use: for each source the keys to ask for, each with its calibrated chance; one dictionary look-up.
``dump`` and ``restore`` keep everything that was learned (tables, calibrations, mixtures), so a learner can go on after a restart: JSON
under Zstandard, readable by whoever doubts it, no code in it. What waits for an outcome is not kept: it would be late anyway.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import zstandard

from predis.cache.predictor.ensemble import FAR, FIRST, STRIDE, Ensemble, kind_of
from predis.cache.predictor.followers import Followers, Source
from predis.cache.predictor.odds import Calibration, LastCalibration, Mixture
from predis.cache.simulator.setup import Key
from predis.errors import IntegrityFailure

Lookup = Mapping[Key, tuple[tuple[Key, float], ...]]

_FORMAT = 1
MOST_BYTES = 1 << 30  # unpacked


def compiled(ensemble: Ensemble, *, least: float = 0.5, most: int = 4) -> Lookup:
    """For each source the keys that follow in time, the likeliest first.

    Args:
        least: chance below which a key is left out. More: fewer, surer.
        most: keys of one source.
    """
    found: dict[Key, dict[Key, float]] = {}
    for rule, table in ((FIRST, ensemble.first), (FAR, ensemble.far)):
        calibrations = ensemble.calibrations[rule]
        for name, source in table.sources.items():
            if not isinstance(name, int | str):
                continue
            for key, count in source.after.items():
                share = count / source.seen
                kinds = [
                    calibrations.get(kind_of(source.seen, share, confirmed=one)) for one in (False, True)
                ]
                chance = _pooled([one for one in kinds if one is not None])
                if chance >= least:
                    chances = found.setdefault(name, {})
                    chances[key] = max(chance, chances.get(key, 0.0))
    return {
        name: tuple(sorted(chances.items(), key=lambda item: -item[1])[:most])
        for name, chances in found.items()
    }


def dump(ensemble: Ensemble) -> bytes:
    """All that was learned. The same learning gives the same bytes."""
    document = {
        "format": _FORMAT,
        "tables": [_table(table) for table in (ensemble.first, ensemble.second, ensemble.far)],
        "calibrations": [
            [[at, one.true, one.all] for at, one in known.items()] for known in ensemble.calibrations
        ],
        "mixtures": [
            [
                rules,
                one.weights,
                [[*at, last.true, last.all, last.requested] for at, last in one.last.items()],
            ]
            for rules, one in ensemble.mixtures.items()
        ],
        "strides": [
            list(ensemble.strides.active),
            [[*at, one.true, one.all] for at, one in ensemble.strides.fared.items()],
        ],
        "patience": [one.requests for one in ensemble.patience[: STRIDE + 1]],
        "price": ensemble.purse.price,
    }
    return zstandard.ZstdCompressor(level=3).compress(orjson.dumps(document))


def digest(contents: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(contents).hexdigest()


def restore(ensemble: Ensemble, contents: bytes, *, expected: str) -> None:
    """Gives a new ensemble what another had learned.

    Raises:
        IntegrityFailure: the digest is another than expected, or this is no saved ensemble; the ensemble is unchanged then.
    """
    if digest(contents) != expected:
        raise IntegrityFailure(
            f"the saved ensemble has the digest {digest(contents)[:12]}, not {expected[:12]}: start without it"
        )
    try:
        if zstandard.frame_content_size(contents) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
        unpacked = zstandard.ZstdDecompressor().decompress(contents, max_output_size=MOST_BYTES)
        document = orjson.loads(unpacked)
        if document["format"] != _FORMAT:
            raise ValueError(f"format {document['format']!r}")
        _fill(ensemble, document)
    except (zstandard.ZstdError, ValueError, KeyError, TypeError, IndexError) as error:
        raise IntegrityFailure(f"this is no saved ensemble ({error}): start without it") from error


def _pooled(calibrations: Sequence[Calibration]) -> float:
    every = sum([one.all for one in calibrations])
    return sum([one.true for one in calibrations]) / every if every else 0.0


def _table(table: Followers) -> list[Any]:
    return [[name, source.seen, list(source.after.items())] for name, source in table.sources.items()]


def _fill(ensemble: Ensemble, document: dict[str, Any]) -> None:
    """All is read before anything is replaced."""
    tables = [
        [_source(name, seen=seen, after=after) for name, seen, after in entries]
        for entries in document["tables"]
    ]
    calibrations = [
        {at: Calibration(true, of) for at, true, of in known} for known in document["calibrations"]
    ]
    mixtures = {rules: _mixture(weights, last) for rules, weights, last in document["mixtures"]}
    active, fared = document["strides"]
    strides = {(distance, run, cf): Calibration(true, of) for distance, run, cf, true, of in fared}
    patience, price = [int(one) for one in document["patience"]], float(document["price"])
    for table, entries in zip((ensemble.first, ensemble.second, ensemble.far), tables, strict=True):
        table.sources.clear()
        table.sources.update(entries[-table.most :])
    for known, read in zip(ensemble.calibrations, calibrations, strict=True):
        known.clear()
        known.update(read)
    ensemble.mixtures.clear()
    ensemble.mixtures.update(mixtures)
    ensemble.strides.active, ensemble.strides.fared = tuple(active), strides
    for one, requests in zip(ensemble.patience, patience, strict=True):
        one.requests = requests
    ensemble.purse.price = price


def _source(name: Any, *, seen: int, after: list[tuple[Key, float]]) -> tuple[Any, Source]:
    source = Source()
    source.seen = int(seen)
    source.after = {key: float(count) for key, count in after}
    return (tuple(name) if isinstance(name, list) else name), source


def _mixture(weights: list[float], last: list[tuple[int, bool, float, float, float]]) -> Mixture:
    mixture = Mixture(len(weights) - 1)
    mixture.weights = [float(weight) for weight in weights]
    for step, confirmed, true, of, requested in last:
        one = mixture.last[step, confirmed] = LastCalibration(true, of)
        one.requested = requested
    return mixture
