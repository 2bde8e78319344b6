"""The last Routes in a local file: what a worker serves from when it restarts while the state database is away."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from predis.errors import InvalidInput
from predis.registry.model import Endorsement, File, Version
from predis.registry.signature import Signature
from predis.serving.route import Route
from predis.serving.store import Endpoint, split_from_row, split_to_row

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remembered:
    """One endpoint as it was last applied."""

    endpoint: Endpoint
    route: Route
    versions: tuple[Version, ...]


class Snapshot:
    """Saves and restores what a worker applied. The file holds key digests, never keys, and is readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, remembered: Iterable[Remembered], keys: dict[str, list[str]] | None) -> None:
        """Replace the file whole; a failure is logged, for it costs nothing until the database is away."""
        document = {"endpoints": [_to_dict(item) for item in remembered], "keys": keys}
        partial = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(document, file)
            partial.replace(self._path)
        except OSError as error:
            log.warning("the Routes could not be kept in %s: %s", self._path, error)

    def load(self) -> tuple[list[Remembered], dict[str, list[str]] | None]:
        """What was saved last; nothing where there is no file, or not a whole one."""
        try:
            document = json.loads(self._path.read_text())
            return [_from_dict(item) for item in document["endpoints"]], document["keys"]
        except FileNotFoundError:
            return [], None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidInput) as error:
            log.warning("the Routes kept in %s cannot be read: %s", self._path, error)
            return [], None


def _to_dict(item: Remembered) -> dict[str, Any]:
    versions = []
    for version in item.versions:
        row = {
            **vars(version),
            "files": [asdict(f) for f in version.files],
            "signature": version.signature.to_dict(),
            "endorsements": [asdict(one) for one in version.endorsements],
        }
        versions.append(
            {**row, "profile": None, "metrics": dict(version.metrics), "lineage": dict(version.lineage)}
        )
    return {
        "endpoint": vars(item.endpoint),
        "number": item.route.number,
        **split_to_row(item.route),
        "versions": versions,
    }


def _from_dict(document: dict[str, Any]) -> Remembered:
    endpoint = Endpoint(**document["endpoint"])
    versions = tuple(
        Version(
            **{
                **row,
                "files": tuple(File(**f) for f in row["files"]),
                "signature": Signature.from_dict(row["signature"]),
                "endorsements": tuple(Endorsement(**one) for one in row["endorsements"]),
            }
        )
        for row in document["versions"]
    )
    split = split_from_row(document)
    return Remembered(endpoint, Route(endpoint.name, document["number"], **vars(split)), versions)
