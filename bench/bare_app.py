"""A bare ASGI server around the same LightGBM model: JSON in, predict, JSON out, and nothing else. The yardstick for serving."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from predis.serving.inputs import Inputs
from predis.serving.runtimes.lightgbm import LightGBM

MODEL = LightGBM(Path(os.environ["MODEL"]).read_bytes())
LEVELS: dict[str, dict[str, float]] = orjson.loads(Path(os.environ["LEVELS"]).read_bytes())


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """One row by name, as the protocol sends it."""
    if scope["type"] != "http":
        return
    message = await receive()
    tensors = orjson.loads(message["body"])["inputs"]
    row = [LEVELS[t["name"]][t["data"][0]] if t["name"] in LEVELS else t["data"][0] for t in tensors]
    (scores,) = MODEL.predict(Inputs(1, np.array([row]), {}))
    body = orjson.dumps(
        {"outputs": [{"name": "probability", "shape": [1], "datatype": "FP64", "data": scores.tolist()}]}
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
