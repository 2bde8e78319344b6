"""What is different between two versions of a model, in the order in which it matters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.registry.model import File, Version
from predis.registry.signature import Field
from predis.stats import Bins, Profile, psi

Counts = NDArray[Any]
Counted = tuple[Bins, Counts]

# Metrics of which less is better; of the others more is.
_LESS_IS_BETTER = frozenset(
    {"log_loss", "brier", "calibration_error", "mae", "rmse", "mape", "quantile_loss"}
)
# How many rows a holdout had, and how many of them were positive, are facts about it.
_FACTS = frozenset({"rows", "positives", "negatives"})


def difference(before: Version, after: Version) -> dict[str, Any]:
    """What changed from one version to another, as plain JSON.

    Returns:
        ``same`` (the files are the same, byte for byte), ``same_holdout``, ``metrics`` (before, after, their difference, and of the
        same holdout whether that is better),
        ``inputs`` and ``outputs`` (added, removed, changed), ``order`` (of inputs), ``score``, ``format`` and ``size_bytes``
        (before, after), ``files`` (added, removed, changed), ``provenance`` (what differs) and ``reference`` (``None`` unless both
        have a profile).
    """
    same_holdout = before.lineage.get("holdout") == after.lineage.get("holdout")
    old, new = before.signature, after.signature
    inputs = [[field.name for field in signature.inputs] for signature in (old, new)]
    return {
        "model": before.model,
        "before": before.number,
        "after": after.number,
        "same": before.digest == after.digest,
        "same_holdout": same_holdout,
        "metrics": _metrics(before.metrics, after.metrics, comparable=same_holdout),
        "inputs": _fields(old.inputs, new.inputs),
        "outputs": _fields(old.outputs, new.outputs),
        "order": _pair(inputs[0], inputs[1]) if sorted(inputs[0]) == sorted(inputs[1]) else None,
        "score": _pair(old.score, new.score),
        "format": _pair(before.format, after.format),
        "size_bytes": {"before": before.size_bytes, "after": after.size_bytes},
        "files": _files(before.files, after.files),
        "provenance": _provenance(before, after),
        "reference": _references(before.profile, after.profile),
    }


def _pair(before: Any, after: Any) -> dict[str, Any] | None:
    """Both, where they differ."""
    return None if before == after else {"before": before, "after": after}


def _metrics(
    before: Mapping[str, float], after: Mapping[str, float], *, comparable: bool
) -> dict[str, dict[str, Any]]:
    """Figures of different holdouts differ by the rows as well as by the models: which is better they do not say."""
    found = {}
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        change = None if old is None or new is None else new - old
        judged = comparable and change is not None and change != 0 and name not in _FACTS
        better = (change < 0) == (name in _LESS_IS_BETTER) if judged and change is not None else None
        found[name] = {"before": old, "after": new, "difference": change, "better": better}
    return found


def _fields(before: tuple[Field, ...], after: tuple[Field, ...]) -> dict[str, Any]:
    old, new = ({field.name: field for field in fields} for fields in (before, after))
    changed = {name: _changes(old[name], new[name]) for name in old if name in new and old[name] != new[name]}
    return {
        "added": [new[name].to_dict() for name in new if name not in old],
        "removed": [old[name].to_dict() for name in old if name not in new],
        "changed": changed,
    }


def _changes(before: Field, after: Field) -> dict[str, Any]:
    """What changed of an input or output; of levels, which came and went (moved ones change their codes)."""
    found: dict[str, Any] = {}
    for name in ("datatype", "shape", "nullable", "raw"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            found[name] = {"before": _plain(old), "after": _plain(new)}
    if before.levels != after.levels:
        old_levels, new_levels = set(before.levels), set(after.levels)
        kept = [[level for level in f.levels if level in old_levels & new_levels] for f in (before, after)]
        found["levels"] = {
            "added": [level for level in after.levels if level not in old_levels],
            "removed": [level for level in before.levels if level not in new_levels],
            "moved": kept[0] != kept[1],
        }
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _files(before: tuple[File, ...], after: tuple[File, ...]) -> dict[str, list[str]]:
    old, new = ({file.name: file.digest for file in files} for files in (before, after))
    return {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
    }


def _provenance(before: Version, after: Version) -> dict[str, dict[str, Any]]:
    """What differs of where they come from; parameters one by one, as ``parameters.NAME``."""
    old, new = (_flat(version) for version in (before, after))
    return {
        name: {"before": old.get(name), "after": new.get(name)}
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    }


def _flat(version: Version) -> dict[str, Any]:
    lineage = dict(version.lineage)
    parameters = lineage.pop("parameters", {})
    return {
        "created_by": version.created_by,
        **{f"parameters.{name}": value for name, value in parameters.items()},
        **lineage,
    }


def _references(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Rows and label rate of both; for each feature of both, and for the score, the PSI between the two, largest first."""
    if before is None or after is None:
        return None
    old, new = Profile.from_dict(before), Profile.from_dict(after)
    theirs = {bins.name: (bins, counts) for bins, counts in zip(new.bins, new.counts, strict=True)}
    shifts = {
        bins.name: _shift((bins, counts), theirs[bins.name])
        for bins, counts in zip(old.bins, old.counts, strict=True)
        if bins.name in theirs
    }
    ordered = sorted(
        shifts, key=lambda name: -1.0 if shifts[name]["psi"] is None else shifts[name]["psi"], reverse=True
    )
    return {
        "rows": {"before": old.rows, "after": new.rows},
        "label_rate": {"before": _rate(old), "after": _rate(new)},
        "score": _shift((old.score_bins, old.score_counts), (new.score_bins, new.score_counts)),
        "features": {name: shifts[name] for name in ordered},
    }


def _rate(profile: Profile) -> float | None:
    return profile.positives / profile.labelled if profile.labelled else None


def _shift(before: Counted, after: Counted) -> dict[str, Any]:
    """PSI from one to the other; ``exact`` unless counts were spread over other bins for it, ``None`` where that says nothing."""
    (bins, counts), (others, _theirs) = before, after
    exact = True
    if bins == others:
        pair = (counts, after[1])
    elif (bins.kind == "categorical" or bins.levels) and (others.kind == "categorical" or others.levels):
        pair = _by_label(before, after)
    elif bins.kind == others.kind and bins.edges and others.edges:
        pair, exact = _spread(before, after), False
    else:
        return {"psi": None, "exact": False}
    found = psi(*pair)
    return {"psi": found if math.isfinite(found) else None, "exact": exact}


def _by_label(before: Counted, after: Counted) -> tuple[Counts, Counts]:
    """The counts of both over the levels (or single values) of either; what is in none of them keeps a bin of its own."""
    sides = [_labelled(bins, counts) for bins, counts in (before, after)]
    labels = dict.fromkeys([*sides[0], *sides[1]])
    first, second = (np.array([side.get(label, 0) for label in labels]) for side in sides)
    return first, second


def _labelled(bins: Bins, counts: Counts) -> dict[str, int]:
    """Counts by level; those of the bins around them by names no level has."""
    inner = counts[: len(bins.levels)] if bins.kind == "categorical" else counts[1:-2]
    rest = int(counts.sum() - inner.sum() - counts[-1])
    return {
        **dict(zip(bins.levels, inner.tolist(), strict=True)),
        "\0other": rest,
        "\0missing": int(counts[-1]),
    }


def _spread(before: Counted, after: Counted) -> tuple[Counts, Counts]:
    """The counts of both over the first one's bins, the second's values lying evenly within each bin of their own.

    How far tails reach is what spreading knows least: what lies beyond the edges counts with the bin next to them.
    """
    (bins, counts), (others, theirs) = before, after
    inner = np.concatenate([[0.0], np.cumsum(theirs[1:-2])]) + theirs[0]
    within = np.interp(bins.edges[1:-1], others.edges, inner)
    present = float(theirs[:-1].sum())
    spread = np.diff(np.concatenate([[0.0], within, [present]]))
    own = counts[1:-2].astype(np.float64)
    own[0] += counts[0]
    own[-1] += counts[-2]
    return np.append(own, counts[-1]), np.append(spread, theirs[-1])
