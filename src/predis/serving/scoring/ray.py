"""Scoring on a Ray cluster, through Ray Data: the same spans, scored by the same code into the same parts, wherever there is room.

The data set and the result must be reachable from every node under the same URL: an object store, or a shared file system. The model's
files travel with the actors, so that nodes need neither the state database nor the artifact store.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from predis.errors import MissingExtra, PredisError, Unavailable, all_errors
from predis.serving.scoring.scorer import Job, Scorer
from predis.serving.scoring.spans import Span

# A cluster that is started here only says what is fatal, and tells nobody elsewhere that it is used.
_QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}


def score_on_ray(job: Job, spans: Sequence[Span], *, workers: int) -> Iterator[int]:
    """Score the spans in actors; yields rows as spans are done. Joins the cluster that ``RAY_ADDRESS`` names, or starts one here.

    Raises:
        MissingExtra: Ray is not installed.
        Unavailable: the cluster failed.
    """
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError
    except ImportError:
        raise MissingExtra.of("ray", "ray") from None
    ours = not ray.is_initialized()
    # Ray tells of actors that end early on standard output, whatever its logging is set to; that belongs to the caller's result.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            if ours:
                for name, value in _QUIET.items():
                    os.environ.setdefault(name, value)
                ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            logging.getLogger("ray.data").setLevel(logging.CRITICAL)
            units = ray.data.from_items([span._asdict() for span in spans], override_num_blocks=len(spans))
            actors = ray.data.ActorPoolStrategy(size=min(workers, len(spans)))
            scorer: Any = _Actor
            for done in units.map(scorer, fn_constructor_args=(ray.put(job),), compute=actors).iter_rows():
                if done["error"]:
                    raise all_errors()[done["error"]](done["message"])
                yield int(done["rows"])
        except (RayError, ConnectionError) as error:
            raise Unavailable(f"Ray failed: {error}; run again to go on") from None
        finally:
            if ours:
                ray.shutdown()


class _Actor:
    """A scorer in an actor."""

    def __init__(self, job: Any) -> None:
        import ray

        self._scorer = Scorer(ray.get(job))

    def __call__(self, unit: dict[str, int]) -> dict[str, Any]:
        try:
            return {"rows": sum(self._scorer.score(Span(**unit))), "error": "", "message": ""}
        except PredisError as error:  # as a value: Ray would wrap it in its own, twice
            return {"rows": 0, "error": error.code, "message": error.message}
