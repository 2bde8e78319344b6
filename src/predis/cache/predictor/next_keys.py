"""Which keys a client will need next, said by a small recurrent network: what goes in, what comes out, and asking it.

In goes what the client read last, each key hashed into one of some thousand buckets, so that a key never seen before is no error. Out
come the few likeliest of the keys that were needed most, with the network's probability that they are among the next that are
needed *late enough for a prefetch*. It is trained elsewhere (`lstm`, with PyTorch) and asked here through ONNX Runtime.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from predis.cache.predictor.features.batch import named
from predis.errors import MissingExtra

WINDOW = 8  # reads that go in
BUCKETS = 4_096  # of keys that go in; 0: no read
CLASSES = 2_048  # keys that can come out
TOP = 4  # that do
BATCH = 256

Numbers = NDArray[np.int64]


def windows(keys: Numbers, clients: Numbers) -> Numbers:
    """For each read the buckets of its client's last reads, itself the last; shape (reads, WINDOW)."""
    buckets = (named(keys) % np.uint64(BUCKETS - 1)).astype(np.int64) + 1
    order = np.argsort(clients, kind="stable")
    found = np.zeros((len(keys), WINDOW), np.int64)
    of = clients[order]
    for back in range(min(WINDOW, len(keys))):
        same = of[back:] == of[: len(of) - back]
        column = np.zeros(len(keys), np.int64)
        column[back:] = np.where(same, buckets[order][: len(of) - back], 0)
        found[order, WINDOW - 1 - back] = column
    return found


def needed_next(
    keys: Numbers, clients: Numbers, *, needed: NDArray[np.bool_], ready: Numbers, horizon: int
) -> Numbers:
    """For each read the next keys that its client needed, none sooner than a prefetch; shape (reads, TOP), -1 where there is none."""
    _, client = np.unique(clients, return_inverse=True)
    count = len(keys)
    at = np.flatnonzero(needed)
    at = at[np.argsort(client[at], kind="stable")]
    first = np.searchsorted(client[at] * (count + 1) + at, client * (count + 1) + np.minimum(ready, count))
    found = np.full((count, TOP), -1, np.int64)
    for place in range(TOP):
        inside = first + place < len(at)
        following = (
            at[np.minimum(first + place, max(len(at) - 1, 0))] if len(at) else np.zeros(count, np.int64)
        )
        good = inside & (client[following] == client) & (following <= np.arange(count) + horizon)
        found[:, place] = np.where(good, keys[following], -1)
    return found


class NextKeys:
    """A trained network, ready to be asked: on a GPU where ONNX Runtime has one, else on one thread.

    Args:
        network: an ONNX file's contents.
        keys: what its classes stand for.
    """

    def __init__(self, network: bytes, keys: Numbers) -> None:
        runtime = _onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        there = runtime.get_available_providers()
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        self.keys = keys
        self._session: Any = runtime.InferenceSession(
            network, options, providers=[provider for provider in wanted if provider in there]
        )

    def ask(self, inputs: Numbers) -> tuple[Numbers, NDArray[np.float32]]:
        """The likeliest keys after each window, -1 for none, and their probabilities; both of shape (windows, TOP)."""
        keys, chances = [], []
        for start in range(0, len(inputs), BATCH):
            chance, which = self._session.run(None, {"reads": inputs[start : start + BATCH]})
            keys.append(
                np.where(which < len(self.keys), self.keys[np.minimum(which, len(self.keys) - 1)], -1)
            )
            chances.append(chance)
        if not keys:
            return np.empty((0, TOP), np.int64), np.empty((0, TOP), np.float32)
        return np.concatenate(keys), np.concatenate(chances)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra.of("onnxruntime", extra="onnx") from error
    return onnxruntime
