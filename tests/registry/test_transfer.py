from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predis.access import Audit
from predis.clock import ManualClock
from predis.errors import (
    AccessDenied,
    IntegrityFailure,
    ModelFailure,
    PredisError,
    Untrusted,
    VersionNotFound,
)
from predis.registry import Field, Registration, Registry, Signature, Version
from predis.registry.endorsing import Subject, endorse, make_key
from predis.registry.signature import PROBABILITY
from predis.registry.signing import Seals
from predis.registry.transfer import Admission, Admitted, Transfers
from predis.state import ArtifactStore, Database
from tests.registries import open_registry
from tests.toy_model import NAMES, booster

TENANT, MODEL = "default", "churn"
PRIVATE, PUBLIC = make_key()
SIGNATURE = Signature(tuple(Field(name, "FP64") for name in NAMES), (PROBABILITY,), "probability")
MODEL_PY = b"def predict(inputs):\n    return inputs['x'] * 0 + 0.5\n"
only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class Side:
    """One installation's registry."""

    def __init__(self, database: Database, folder: Path, *, clock: ManualClock, **seals: Any) -> None:
        self.artifacts = ArtifactStore(str(folder / "artifacts"))
        self.registry: Registry = open_registry(
            database, self.artifacts, clock=clock, seals=Seals(folder / "keys", **seals)
        )
        self.transfers = Transfers(self.registry, self.artifacts, clock=clock)
        self.audit = Audit(database, clock)

    def register(self, *, model: str = MODEL, endorsed: bool = False, **given: Any) -> Version:
        given = {"format": "lightgbm", "files": {"model.txt": booster()}, "signature": SIGNATURE, **given}
        given["files"] = {
            name: self.artifacts.put(content).digest for name, content in given["files"].items()
        }
        for name in ("reference", "holdout"):
            if name in given:
                given[name] = self.artifacts.put(given[name]).digest
        version = self.registry.register(TENANT, Registration(model=model, **given), actor="alice")
        if not endorsed:
            return version
        self.trust()
        key, signature = endorse(PRIVATE, Subject(model, version.format, version.digest))
        return self.registry.sign(
            TENANT, model, reference=version.number, signatures={key: signature}, actor="alice"
        )

    def trust(self) -> None:
        self.registry.trust.trust(TENANT, "alice", public_key=PUBLIC.decode(), actor="root")

    def export(self, version: Version) -> bytes:
        return b"".join(self.transfers.export(TENANT, version.model, reference=version.number))

    def take_in(self, content: bytes, **wanted: Any) -> Admitted:
        return self.transfers.take_in(TENANT, io.BytesIO(content), wanted=Admission(**wanted), actor="bob")

    def count(self, model: str = MODEL) -> int:
        try:
            return len(self.registry.versions(TENANT, model))
        except LookupError:
            return 0


@pytest.fixture
def here(database: Database, tmp_path: Path, clock: ManualClock) -> Side:
    return Side(database, tmp_path / "here", clock=clock, allow_code=True)


@pytest.fixture
def open_there(
    database_url: Callable[[str, bool], str], tmp_path: Path, clock: ManualClock
) -> Iterator[Callable[..., Side]]:
    """Opens another installation, on SQLite."""
    databases: list[Database] = []

    def call(**seals: Any) -> Side:
        databases.append(Database(database_url("sqlite", True)))
        return Side(databases[-1], tmp_path / "there", clock=clock, **seals)

    yield call
    for each in databases:
        each.close()


@pytest.fixture
def there(open_there: Callable[..., Side]) -> Side:
    return open_there()


def parquet(rows: int) -> bytes:
    sink = pa.BufferOutputStream()
    columns: dict[str, Any] = {name: [float(at % 7 - 3) for at in range(rows)] for name in NAMES}
    pq.write_table(pa.table({**columns, "label": [float(at % 7 > 3) for at in range(rows)]}), sink)
    return sink.getvalue().to_pybytes()


def test_the_identical_version_there(here: Side, there: Side, clock: ManualClock) -> None:
    sent = here.register(
        reference=parquet(300), holdout=parquet(200), label="label", lineage={"team": "risk"}, revision="abc"
    )
    clock.advance(60)
    got = there.take_in(here.export(sent), alias="candidate", source="https://dev")
    version = there.registry.version(TENANT, MODEL, reference="candidate")
    assert got.is_new
    assert got.version == there.registry.version(TENANT, MODEL) == version
    assert (version.digest, version.files, version.signature) == (sent.digest, sent.files, sent.signature)
    assert (version.metrics, version.profile) == (sent.metrics, sent.profile)
    assert version.metrics
    assert version.profile
    assert (version.created_by, version.created_at - sent.created_at) == ("bob", 60 * 10**9)
    assert version.lineage == {
        "team": "risk", "revision": "abc", "label": "label",
        "origin": {
            "model": MODEL, "version": 1, "created_at": "2023-11-14T22:13:20Z", "created_by": "alice",
            "reference": sent.lineage["reference"], "holdout": sent.lineage["holdout"],
        },
    }  # fmt: skip
    assert there.registry.read_files(version) == here.registry.read_files(sent)
    entries = {entry["action"]: entry for entry in there.audit.entries(TENANT)}
    assert entries["model.import"]["detail"] == {
        "digest": sent.digest, "from": "churn@1", "source": "https://dev",
    }  # fmt: skip


@only_sqlite
def test_exported_again_it_is_the_same_but_for_its_origin(here: Side, there: Side) -> None:
    sent = here.register(lineage={"team": "risk"})
    assert here.export(sent) == here.export(sent)
    version = there.take_in(here.export(sent)).version
    back = here.take_in(there.export(version), model="other").version
    assert (back.digest, back.lineage) == (sent.digest, version.lineage)


@only_sqlite
def test_what_is_there_is_found_and_not_made_twice(here: Side, there: Side) -> None:
    sent = here.register()
    archive = here.export(sent)
    first = there.take_in(archive)
    again = there.take_in(archive, alias="staging")
    assert (first.is_new, again.is_new) == (True, False)
    assert (
        again.version.number
        == first.version.number
        == there.registry.resolve(TENANT, MODEL, reference="staging")
    )
    assert there.count() == 1
    renamed = there.take_in(archive, model="other")
    assert renamed.is_new
    assert there.count("other") == 1


@only_sqlite
def test_the_same_files_under_another_signature_are_another_version(here: Side, there: Side) -> None:
    there.take_in(here.export(here.register()))
    other = Signature(SIGNATURE.inputs, (Field("risk", "FP64"),), "risk")
    assert there.take_in(here.export(here.register(signature=other))).is_new
    assert there.count() == 2


@only_sqlite
class TestNothingHalfDone:
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
    def test_cut_short(self, here: Side, there: Side, share: float) -> None:
        whole = here.export(here.register())
        with pytest.raises(IntegrityFailure, match="cut short"):
            there.take_in(whole[: int(len(whole) * share)])
        assert there.count() == 0

    def test_a_model_that_does_not_load(
        self, here: Side, there: Side, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_given: Any, **_more: Any) -> Any:
            raise ModelFailure("it does not load")

        whole = here.export(here.register())
        monkeypatch.setattr(there.registry, "_inspect", refuse)
        with pytest.raises(ModelFailure, match="does not load"):
            there.take_in(whole)
        assert there.count() == 0

    def test_a_signature_that_does_not_fit_the_model(self, here: Side, there: Side) -> None:
        whole = here.export(here.register())
        wrong = whole.replace(b'"name": "z"', b'"name": "y"')
        with pytest.raises(PredisError):
            there.take_in(
                wrong.replace(b'"name": "x"', b'"name": "z"').replace(b'"name": "y"', b'"name": "x"')
            )
        assert there.count() == 0

    def test_an_alias_that_cannot_be_one(self, here: Side, there: Side) -> None:
        with pytest.raises(PredisError, match="alias"):
            there.take_in(here.export(here.register()), alias="latest")
        assert there.count() == 0


def test_a_version_that_is_not_there(here: Side) -> None:
    here.register()
    with pytest.raises(VersionNotFound):
        here.transfers.export(TENANT, MODEL, reference=3)


@only_sqlite
class TestPrograms:
    def estimator(self, here: Side, **given: Any) -> Version:
        import numpy as np
        from sklearn.linear_model import LogisticRegression

        rng = np.random.default_rng(0)
        rows = rng.normal(size=(50, 3))
        found = LogisticRegression().fit(rows, rows[:, 0] > 0)
        given = {"format": "sklearn", "files": {"model.pkl": pickle.dumps(found)}, "signature": None, **given}
        return here.register(**given)

    def test_one_that_nobody_stands_for(self, here: Side, there: Side) -> None:
        with pytest.raises(Untrusted, match="no key trusted here has signed it"):
            there.take_in(here.export(self.estimator(here)))
        assert there.count() == 0

    def test_an_administrator_s_word(self, here: Side, there: Side) -> None:
        sent = self.estimator(here)
        version = there.take_in(here.export(sent), trusted=True).version
        assert version.digest == sent.digest
        assert version.seal not in ("", sent.seal)
        assert there.registry.read_files(version)

    def test_a_trusted_key_s_signature(self, here: Side, there: Side) -> None:
        whole = here.export(self.estimator(here, endorsed=True))
        with pytest.raises(Untrusted, match="no key trusted here"):
            there.take_in(whole)
        there.trust()
        version = there.take_in(whole).version
        assert [one.name for one in version.endorsements] == ["alice"]
        with pytest.raises(Untrusted, match="no key trusted here"):
            there.take_in(whole, model="renamed")

    def test_a_signature_over_something_else(self, here: Side, there: Side) -> None:
        whole = here.export(self.estimator(here, endorsed=True))
        there.trust()
        given = here.registry.version(TENANT, MODEL).endorsements[0].signature
        forged = whole.replace(given.encode(), ("0" * len(given)).encode())
        with pytest.raises(Untrusted, match="does not fit"):
            there.take_in(forged)
        assert there.count() == 0

    def test_code_needs_the_setting_too(self, here: Side, open_there: Callable[..., Side]) -> None:
        signature = Signature((Field("x", "FP64"),), (PROBABILITY,), "probability")
        whole = here.export(here.register(format="python", files={"model.py": MODEL_PY}, signature=signature))
        with pytest.raises(AccessDenied, match="allow_code"):
            open_there().take_in(whole, trusted=True, code=True)
        there = open_there(allow_code=True)
        with pytest.raises(AccessDenied, match="an administrator may"):
            there.take_in(whole, trusted=True)
        assert there.take_in(whole, trusted=True, code=True).is_new


@only_sqlite
def test_a_tenant_that_demands_signatures(here: Side, there: Side) -> None:
    unsigned = here.export(here.register())
    signed = here.export(here.register(endorsed=True))
    there.trust()
    there.registry.trust.require(TENANT, True, actor="root")
    with pytest.raises(Untrusted, match="demands signatures"):
        there.take_in(unsigned)
    assert there.count() == 0
    assert there.take_in(signed).is_new
