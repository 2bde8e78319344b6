"""Versions, rows and calls for tests of the prediction cache."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from predis.errors import PredisError
from predis.registry.model import Version
from predis.registry.signature import PROBABILITY, Field, Signature
from predis.serving.cache.endpoint import EndpointCache
from predis.serving.inputs import Inputs

AB = Signature((Field("a", "FP64"), Field("b", "FP64")), (PROBABILITY,), "probability")


def version(
    model: str = "m", number: int = 1, *, tenant: str = "default", digest: str = "", signature: Signature = AB
) -> Version:
    return Version(
        tenant, model, number, "onnx", digest or f"{number:064x}", (), signature, {}, {}, 0, "test"
    )


def matrix(*rows: list[float]) -> Inputs:
    return Inputs(len(rows), np.array(rows, np.float64), {})


class Call:
    """A request, as far as the cache sees one: not at all."""

    deadline = math.inf
    cancelled = False

    def __init__(self, inputs: Inputs | None = None) -> None:
        self.inputs = inputs
        self.outputs: Any = None
        self.error: PredisError | None = None


class Recorder:
    """A plane that writes down what it is asked, and answers calls with what it is told."""

    def __init__(self) -> None:
        self.to_predict: list[Any] = []
        self.answers: list[tuple[Any, Any]] = []

    def cached(self, call: Any, outputs: Any) -> None:
        self.answers.append((call, outputs))

    def uncached(self, call: Any) -> None:
        self.to_predict.append(call)

    def failed(self, call: Any, error: PredisError) -> None:
        self.answers.append((call, error))


class Planelet:
    """A plane in small: predicts at once what is not kept, and counts how often.

    ``predict`` is the model. ``cache`` is set once the cache is made.
    """

    def __init__(self, predict: Any, keys: Any) -> None:
        self.predict = predict
        self.keys = keys
        self.cache: EndpointCache
        self.predicted = 0

    def ask(self, inputs: Inputs) -> Call:
        call = Call(inputs)
        self.cache.begin(self.keys.of(inputs), call)
        return call

    def cached(self, call: Call, outputs: Any) -> None:
        call.outputs = outputs

    def uncached(self, call: Call) -> None:
        self.predicted += 1
        call.outputs = self.predict(call.inputs)
        self.cache.finish(self.keys.of(call.inputs), call.outputs)

    def failed(self, call: Call, error: PredisError) -> None:
        call.error = error
