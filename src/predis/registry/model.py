"""The registry's words as data: what a version is, and what registering one takes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from predis.clock import iso
from predis.errors import InvalidInput
from predis.registry.signature import Field, Signature

FORMATS = {
    "catboost": "CatBoost model (save_model, .cbm)",
    "lightgbm": "LightGBM text model (Booster.save_model)",
    "onnx": "ONNX graph",
    "python": "Python code: model.py with predict(inputs), and any files beside it",
    "sklearn": "scikit-learn estimator or pipeline, in skops, joblib or pickle",
    "torch": "PyTorch: TorchScript, or a program of torch.export (.pt2)",
    "xgboost": "XGBoost model in JSON or UBJSON (Booster.save_model)",
}
# Programs, or files that may hold one: loaded only if the registry sealed them.
SEALED_FORMATS = frozenset({"python", "sklearn", "torch"})
# Anybody's code, which nothing can look through.
CODE_FORMATS = frozenset({"python"})
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?")


def check_name(name: object, what: str) -> str:
    """The name, if it can be one: it stands in URLs, folders and metrics.

    Raises:
        InvalidInput: it is not 1 to 128 of a-z 0-9 . _ - with a letter or digit at both ends.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"a {what}'s name is 1 to 128 of a-z 0-9 . _ - and starts and ends with a letter or digit, got {name!r}"
        )
    return name


def check_file_name(name: str) -> None:
    """
    Raises:
        InvalidInput: it is not a path of plain names that stays within the folder it is written to.
    """
    if not name.isprintable() or not 0 < len(name) <= 255:
        raise InvalidInput(f"a file's name is 1 to 255 printable characters, got {name[:80]!r}")
    if "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise InvalidInput(f"a file's name may hold folders but not leave its own, got {name[:80]!r}")


@dataclass(frozen=True)
class File:
    """One file of a version: where it belongs, what it must contain, how large it is."""

    name: str
    digest: str
    size_bytes: int


@dataclass(frozen=True)
class Endorsement:
    """A user's signature over a version, and the trusted key that it fits: the key's id, whose it is, and the key itself."""

    key: str
    name: str
    public_key: str
    signature: str


@dataclass(frozen=True)
class Version:
    """An immutable, numbered artifact of a model. ``digest`` covers every file by name and content, ``seal`` the digest (see ``Seals``).

    ``endorsements`` are those by keys the tenant trusts, ``must_be_signed`` whether it demands one; both as they were when it was read.
    """

    tenant: str
    model: str
    number: int
    format: str
    digest: str
    files: tuple[File, ...]
    signature: Signature
    metrics: Mapping[str, float]
    lineage: Mapping[str, Any]
    created_at: int
    created_by: str
    profile: Mapping[str, Any] | None = field(default=None, repr=False)
    seal: str = field(default="", repr=False)
    endorsements: tuple[Endorsement, ...] = field(default=(), repr=False)
    must_be_signed: bool = field(default=False, repr=False)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "version": self.number,
            "format": self.format,
            "digest": self.digest,
            "size_bytes": self.size_bytes,
            "files": [vars(file) for file in self.files],
            "signature": self.signature.to_dict(),
            "metrics": dict(self.metrics),
            "lineage": dict(self.lineage),
            "created_at": iso(self.created_at),
            "created_by": self.created_by,
            "has_profile": self.profile is not None,
            "sealed": bool(self.seal),
            "signed_by": [{"key": one.key, "name": one.name} for one in self.endorsements],
        }


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What a caller says of a version to be. Files and data sets are named by their digests in the artifact store.

    ``signature`` is the whole signature, ``inputs`` its inputs where only those are known; without either they are those of the reference.
    ``reference`` is a Parquet table of training inputs (and the label column, if there is one): the drift reference.
    ``holdout`` is a labelled Parquet table the model has not seen: the metrics come from it.
    ``training`` is the Parquet table the model was trained on: retraining adds to it.
    ``parameters`` are what it was trained with, ``revision`` the state of the code, ``parent`` the version of this model it goes back to;
    0: none. ``lineage`` is whatever else tells where it comes from.
    ``endorsements`` are users' signatures over it, by the ids of their keys (see ``endorsing``).
    """

    model: str
    format: str
    files: Mapping[str, str]
    signature: Signature | None = None
    inputs: tuple[Field, ...] = ()
    label: str = ""
    reference: str = ""
    holdout: str = ""
    training: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    revision: str = ""
    parent: int = 0
    lineage: Mapping[str, Any] = field(default_factory=dict)
    endorsements: Mapping[str, str] = field(default_factory=dict)


def digest_of(files: tuple[File, ...]) -> str:
    """SHA-256 over every file's name and digest, in the order of the names."""
    summary = hashlib.sha256()
    for file in sorted(files, key=lambda f: f.name):
        summary.update(f"{file.name}\0{file.digest}\n".encode())
    return summary.hexdigest()
