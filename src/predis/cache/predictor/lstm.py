"""Training the network of `next_keys`: one LSTM layer between an embedding of hashed keys and a softmax over the keys needed most.

What it learns to say is not the next key but the next few that are needed and *late enough*: each read's targets lie a prefetch's
delay ahead. One more class stands for all other keys, so that a client whose next keys cannot be foretold gets low chances for all.

The network is small on purpose: a batch of 256 must be answered in less than 4.8 ms by one core. It is exported to ONNX, with the choice
of the likeliest few inside, so that little is copied out.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from predis.cache.predictor.next_keys import BUCKETS, CLASSES, TOP, WINDOW, NextKeys, Numbers
from predis.errors import InvalidInput, MissingExtra

log = logging.getLogger(__name__)

_EMBEDDED, _HIDDEN = 32, 48
_EPOCHS, _BATCH, _RATE = 4, 256, 4e-3
_OPSET = 17
_LEAST = 500


def fit(inputs: Numbers, targets: Numbers, *, seed: int = 1, epochs: int = _EPOCHS) -> NextKeys:
    """Train on reads that are over; on a GPU where PyTorch has one. The same inputs and seed give the same network on a CPU.

    Args:
        inputs, targets: of each read, as ``windows`` and ``needed_next`` give them.

    Raises:
        InvalidInput: too few of the reads have a target.
        MissingExtra: PyTorch is not installed.
    """
    some = (targets >= 0).any(1)
    if some.sum() < _LEAST:
        raise InvalidInput(
            f"{int(some.sum())} reads with a key needed later are too few to learn from; wait for more reads"
        )
    inputs, targets = inputs[some], targets[some]
    keys, counts = np.unique(targets[targets >= 0], return_counts=True)
    keys = np.sort(keys[np.argsort(-counts, kind="stable")[:CLASSES]])
    torch = _torch()
    with torch.random.fork_rng(), _one_thread(torch):
        torch.manual_seed(seed)
        network = _network(torch, len(keys) + 1)
        _train(network, inputs, classes=_classes(targets, keys), epochs=epochs)
        return NextKeys(_exported(torch, network), keys)


@contextlib.contextmanager
def _one_thread(torch: Any) -> Iterator[None]:
    """Sums come out the same on every machine, and matrices as small as these gain nothing from a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _classes(targets: Numbers, keys: Numbers) -> Numbers:
    """Targets as classes: the last stands for all keys that have none; -1 where there is no target."""
    at = np.minimum(np.searchsorted(keys, targets), len(keys) - 1)
    return np.where(targets < 0, -1, np.where(keys[at] == targets, at, len(keys)))


def _network(torch: Any, classes: int) -> Any:
    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(BUCKETS, _EMBEDDED)
            self.recurrent = torch.nn.LSTM(_EMBEDDED, _HIDDEN, batch_first=True)
            self.output = torch.nn.Linear(_HIDDEN, classes)
            self.choose = False

        def forward(self, reads: Any) -> Any:
            states, _ = self.recurrent(self.embedding(reads))
            scores = self.output(states[:, -1])
            return torch.topk(torch.softmax(scores, -1), min(TOP, classes)) if self.choose else scores

    return Network()


def _train(network: Any, inputs: Numbers, *, classes: Numbers, epochs: int) -> None:
    torch = _torch()
    device = _device(torch)
    network.to(device).train()
    steps = epochs * -(-len(inputs) // _BATCH)
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    given, wanted = torch.from_numpy(inputs).to(device), torch.from_numpy(classes).to(device)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).to(device).split(_BATCH):
            logs = torch.log_softmax(network(given[rows]), -1)
            there = wanted[rows] >= 0
            said = logs.gather(1, wanted[rows].clamp(min=0))
            loss = -(said * there).sum() / there.sum().clamp(min=1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.to("cpu").eval()


def _device(torch: Any) -> Any:
    """A GPU, where one can be used: within a limit on address space (``train_memory_bytes``) it may be there and not be usable."""
    if torch.cuda.is_available():
        try:
            return torch.zeros(1, device="cuda").device
        except RuntimeError as error:
            log.warning("the network is trained without the GPU: %s", error)
    return torch.device("cpu")


def _exported(torch: Any, network: Any) -> bytes:
    network.choose = True
    out = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter that needs no further package is called legacy; the LSTM's initial state is zero whatever the batch.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, WINDOW, dtype=torch.int64),),
            out,
            dynamo=False,
            opset_version=_OPSET,
            input_names=["reads"],
            output_names=["chances", "classes"],
            dynamic_axes={"reads": {0: "batch"}, "chances": {0: "batch"}, "classes": {0: "batch"}},
        )
    return out.getvalue()


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", extra="torch") from error
    return torch
