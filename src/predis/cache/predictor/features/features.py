"""The 64 features of each read, computed for whole batches; see ``table`` for what they are and ``grouped`` for how.

Five kinds of histories are kept, each in a table of fixed size: of keys, of pairs (the client's last key, this key), of what came after
a key, of templates and of clients; and one of the whole stream. A row sees them as they were before it. How reads are cut into batches
changes nothing but the last digits, as long as the tables are large enough for what one batch needs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from predis.cache.predictor.features.batch import Batch, named
from predis.cache.predictor.features.grouped import Floats, Grouped
from predis.cache.predictor.features.keys import WIDTH as KEY_WIDTH
from predis.cache.predictor.features.keys import Now, day_angle, of_keys
from predis.cache.predictor.features.places import Names, Places
from predis.cache.predictor.features.table import NAMES

_SLOW = 1.0 / 1_024.0
_TEMPLATE = 1.0 / 64.0
_RECENT = 1.0 / 8.0
_HALF = 1_024.0  # requests
_ROWS = 4_096  # that are computed at once


class Features:
    """Remembers reads, and says what is known before each.

    Args:
        most: keys that are remembered, and pairs; a power of two. 2^17 take some 55 MB.

    >>> features = Features(most=1024)
    >>> rows = features.take(Batch.of_columns(np.array([7, 8, 7, 8, 7])))
    >>> rows.shape
    (5, 64)
    >>> rows[:, NAMES.index("since_last")]
    array([nan, nan,  2.,  2.,  2.], dtype=float32)
    """

    def __init__(self, *, most: int = 1 << 17) -> None:
        self._keys = Places(most, KEY_WIDTH)
        self._pairs = Places(most, 2)
        self._after = Places(most, 1)
        self._into = Places(most, 1)
        self._templates = Places(max(8, min(most, 1 << 13)), 5)
        self._clients = Places(max(8, min(most, 1 << 14)), 7)
        self._stream = Places(8, 4)
        self._request = 0.0

    def take(self, batch: Batch) -> NDArray[np.float32]:
        """Features of each row, float32 of shape (rows, 64), in the order of ``table.NAMES``; then its reads are remembered."""
        if not len(batch):
            return np.empty((0, len(NAMES)), np.float32)
        request: Floats = self._request + np.cumsum(batch.learn, dtype=np.float64)
        self._request = float(request[-1])
        grouped = Grouped(batch.key, batch.learn, places=self._keys)
        new = grouped.unsorted(np.where(grouped.stored[grouped.group, 0] + grouped.earlier > 0, 0.0, 1.0))
        columns, mean_size = self._of_stream(batch, new)
        now = Now(batch, request, mean_size)
        found, gap = of_keys(grouped, now)
        columns |= found
        columns |= self._of_templates(now, new, gap=gap)
        clients, before = self._of_clients(now, new)
        columns |= clients | self._of_pairs(now, before) | _of_day(batch)
        return np.column_stack([columns[name] for name in NAMES]).astype(np.float32)

    def answers(self, batch: Batch) -> NDArray[np.float32]:
        """As ``take``, of a batch of any length; only the rows of its questions."""
        found = [np.empty((0, len(NAMES)), np.float32)]
        for start in range(0, len(batch), _ROWS):
            part = batch.cut(start, start + _ROWS)
            found.append(self.take(part)[~part.learn])
        return np.concatenate(found)

    def _of_stream(self, batch: Batch, new: Floats) -> tuple[dict[str, Floats], Floats]:
        grouped = Grouped(np.ones(len(batch), np.uint64), batch.learn, places=self._stream)
        sized = batch.size > 0
        terms = np.column_stack([new, batch.hit, batch.size])
        weights = np.maximum(_SLOW, 1.0 / (1.0 + grouped.stored[0, 0] + grouped.earlier))[:, None] * np.ones(
            3
        )
        weights[:, 2] *= sized
        found, after = grouped.scan(1.0 - weights, weights * terms, column=1)
        count = grouped.stored[:, 0] + batch.learn.sum()
        grouped.keep([count, *after.T])
        return {"stream_new": found[:, 0], "stream_hits": found[:, 1]}, found[:, 2]

    def _of_templates(self, now: Now, new: Floats, *, gap: Floats) -> dict[str, Floats]:
        batch = now.batch
        grouped = Grouped(batch.template, batch.learn, places=self._templates)
        request = grouped.sorted(now.request)
        last = grouped.last(request, 0)
        known = last > 0
        gap = grouped.sorted(gap)
        weight = np.full((len(batch), 3), _TEMPLATE)
        weight[:, 2] *= ~np.isnan(gap)
        terms = np.column_stack([grouped.sorted(batch.hit), grouped.sorted(new), np.nan_to_num(gap)])
        fade = np.exp2((last - request) / _HALF)
        factors = np.column_stack([fade, 1.0 - weight])
        found, after = grouped.scan(factors, np.column_stack([np.ones(len(batch)), weight * terms]), column=1)
        grouped.keep([grouped.ended(request, 0), *after.T])
        found = np.where(known[:, None], found, np.nan)
        all_reads = _HALF / np.log(2.0) * (1.0 - np.exp2(-now.request / _HALF))
        return {
            "template_share": grouped.unsorted(found[:, 0] * fade) / all_reads,
            "template_since": grouped.unsorted(np.where(known, request - last, np.nan)),
            "template_hits": grouped.unsorted(found[:, 1]),
            "template_new": grouped.unsorted(found[:, 2]),
            "template_gap": grouped.unsorted(found[:, 3]),
        }

    def _of_clients(self, now: Now, new: Floats) -> tuple[dict[str, Floats], Names]:
        """And the client's last key, 0 where there is none."""
        batch = now.batch
        grouped = Grouped(batch.client, batch.learn, places=self._clients)
        request, seconds = grouped.sorted(now.request), grouped.sorted(batch.seconds)
        key, template = (grouped.sorted(column).astype(np.float64) for column in (batch.key, batch.template))
        last, last_s = grouped.last(request, 0), grouped.last(seconds, 1)
        last_key, last_template = grouped.last(key, 2), grouped.last(template, 3)
        known = last > 0
        weight = np.full((len(batch), 2), _RECENT)
        terms = np.column_stack([grouped.sorted(new), last_template == template])
        fade = np.exp2((last - request) / _HALF)
        found, after = grouped.scan(
            np.column_stack([fade, 1.0 - weight]),
            np.column_stack([np.ones(len(batch)), weight * terms]),
            column=4,
        )
        ended = [grouped.ended(column, at) for at, column in enumerate((request, seconds, key, template))]
        grouped.keep([*ended, *after.T])
        found = np.where(known[:, None], found, np.nan)
        columns = {
            "client_reads": grouped.unsorted(found[:, 0] * fade),
            "client_since": grouped.unsorted(np.where(known, request - last, np.nan)),
            "client_since_s": grouped.unsorted(np.where(known, seconds - last_s, np.nan)),
            "client_new": grouped.unsorted(found[:, 1]),
            "client_same_template": grouped.unsorted(found[:, 2]),
        }
        return columns, grouped.unsorted(last_key).astype(np.uint64)

    def _of_pairs(self, now: Now, before: Names) -> dict[str, Floats]:
        """What came right before, and how often. A row whose client has no last key is of no pair."""
        batch = now.batch
        learn = batch.learn & (before != 0)
        pairs = Grouped(named(before * np.uint64(3) + batch.key), learn, places=self._pairs)
        request = pairs.sorted(now.request)
        count, last = pairs.stored[pairs.group, 0] + pairs.earlier, pairs.last(request, 1)
        pairs.keep([_counted(pairs), pairs.ended(request, 1)])
        reads = pairs.unsorted(np.where(pairs.sorted(before) != 0, count, np.nan))
        since = pairs.unsorted(np.where(count > 0, request - last, np.nan))
        after = _count(Grouped(before | np.uint64(1), learn, places=self._after))
        into = _count(Grouped(batch.key, learn, places=self._into))
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "pair_reads": reads,
                "pair_after": np.where(after > 0, np.minimum(reads / after, 1.0), np.nan),
                "pair_before": np.where(into > 0, np.minimum(reads / into, 1.0), np.nan),
                "pair_since": since,
            }


def _counted(grouped: Grouped) -> Floats:
    """For each name, how often it was learnt, with this batch."""
    return grouped.stored[:, 0] + np.bincount(
        grouped.group, weights=grouped.learn, minlength=len(grouped.stored)
    )


def _count(grouped: Grouped) -> Floats:
    """How often each row's name was learnt before; counts on."""
    grouped.keep([_counted(grouped)])
    return grouped.unsorted(grouped.stored[grouped.group, 0] + grouped.earlier)


def _of_day(batch: Batch) -> dict[str, Floats]:
    angle = day_angle(batch.seconds)
    return {"hour_sin": np.sin(angle), "hour_cos": np.cos(angle)}
