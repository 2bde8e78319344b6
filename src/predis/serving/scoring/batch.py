"""One batch: look at the data, see what is done already, score the rest, put the result together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from predis.errors import AlreadyExists, Conflict, InvalidInput
from predis.registry.model import Version
from predis.serving.scoring.data import examine
from predis.serving.scoring.pool import score_here, score_in_processes
from predis.serving.scoring.result import assemble, made_of, size_of
from predis.serving.scoring.scorer import Job, result_schema
from predis.serving.scoring.spans import Span, left, units
from predis.serving.scoring.workspace import Workspace

Engine = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What to score and how.

    ``source`` is a file, folder, pattern or URL of Parquet or CSV files; ``target`` the Parquet file to write. ``contents`` are the
    version's files. ``keep`` names columns to pass through; ``("*",)`` is all of them. ``fresh`` forgets what was scored before.
    """

    version: Version
    contents: Mapping[str, bytes] = field(repr=False)
    source: str
    target: str
    keep: tuple[str, ...] = ()
    workers: int = 1
    engine: Engine = "local"
    fresh: bool = False


@dataclass(frozen=True)
class Summary:
    """What was done: rows of the result, those of them scored by this run, its seconds, files read, and the result's size."""

    rows: int
    scored: int
    seconds: float
    files: int
    size_bytes: int


class Progress:
    """Follows a batch; this one is told and says nothing."""

    def begin(self, rows: int, *, done: int) -> None:
        """Scoring begins: so many rows in all, so many of them scored before."""

    def advance(self, rows: int) -> None:
        """So many more rows are scored."""

    def assembling(self) -> None:
        """All rows are scored; the result is being written."""


def score(batch: Batch, progress: Progress | None = None) -> Summary:
    """Score a data set.

    Raises:
        NotFound: there is no data.
        InvalidInput: the data does not fit the version's signature; the message says where.
        Conflict: what lies at the target is of other data or another version, or another process is at work on it.
        AlreadyExists: what lies at the target is something else altogether.
        ModelFailure: the model failed.
    """
    began = time.monotonic()
    progress = progress or Progress()
    if not batch.target.lower().endswith(".parquet"):
        raise InvalidInput(f"{batch.target}: the result is a Parquet file; let its name end in .parquet")
    signature = batch.version.signature
    data = examine(batch.source, signature.inputs, keep=batch.keep, target=batch.target)
    job = Job(batch.version.format, batch.contents, signature, data, batch.target)
    schema = result_schema(job)
    plan = _plan(batch, job)
    workspace = Workspace(batch.target)
    with workspace.held():
        if not batch.fresh and _is_finished(workspace, plan):
            workspace.remove()
            return Summary(data.rows, 0, time.monotonic() - began, len(data.sources), size_of(batch.target))
        if batch.fresh or workspace.plan() != plan:
            workspace.begin(plan)
        todo = left(workspace.done(), data.rows)
        missing = sum(span.rows for span in todo)
        progress.begin(data.rows, done=data.rows - missing)
        spans = units(todo, job.unit_rows(missing, workers=batch.workers))
        for rows in _run(batch, job, spans=spans):
            progress.advance(rows)
        progress.assembling()
        assemble(workspace, plan, schema=schema)
        workspace.remove()
    return Summary(data.rows, missing, time.monotonic() - began, len(data.sources), size_of(batch.target))


def _plan(batch: Batch, job: Job) -> dict[str, Any]:
    """What makes this result this result, as plain JSON values."""
    return {
        "model": batch.version.model,
        "version": batch.version.number,
        "digest": batch.version.digest,
        "rows": job.data.rows,
        "keep": list(job.data.keep),
        "files": [
            {"name": each.name, "rows": each.rows, "identity": each.identity} for each in job.data.sources
        ],
    }


def _is_finished(workspace: Workspace, plan: Mapping[str, Any]) -> bool:
    """Whether the result is there already. What lies there or has been begun must be of the same plan.

    Raises:
        Conflict: it is of another.
        AlreadyExists: it is something else altogether.
    """
    exists, made = made_of(workspace.url)
    if made == plan:
        return True
    begun = workspace.plan() if workspace.done() else None
    if begun == plan:
        return False
    if exists and made is None:
        raise AlreadyExists(
            f"{workspace.url} exists and is no result of scoring; name another, or replace it with --fresh"
        )
    for found, what in ((begun, "was begun"), (made, "was made")):
        if found is not None:
            raise Conflict(
                f"{workspace.url} {what} {_difference(found, plan)}; name another result, or score again with --fresh"
            )
    return False


def _difference(found: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """In what the plan of something there differs from this one, for people."""
    was, is_ = ((p.get("model"), p.get("version"), p.get("digest")) for p in (found, plan))
    if was != is_:
        return f"with {was[0]}@{was[1]}, and this is {is_[0]}@{is_[1]}"
    if found.get("keep") != plan["keep"]:
        return f"keeping the columns {', '.join(found.get('keep', ())) or 'none'}, and now they are {', '.join(plan['keep']) or 'none'}"
    before = {file["name"]: file["identity"] for file in found.get("files", ())}
    now = {file["name"]: file["identity"] for file in plan["files"]}
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return f"of other data: {', '.join(changed[:5]) or 'the files stand in another order'} changed since"


def _run(batch: Batch, job: Job, *, spans: list[Span]) -> Iterator[int]:
    if not spans:
        return iter(())
    if batch.engine == "ray":
        from predis.serving.scoring.ray import score_on_ray

        return score_on_ray(job, spans, workers=batch.workers)
    if batch.workers > 1 and len(spans) > 1:
        return score_in_processes(job, spans, workers=batch.workers)
    return score_here(job, spans)
