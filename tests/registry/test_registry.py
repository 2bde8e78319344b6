from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from predis.access import Audit
from predis.clock import ManualClock
from predis.errors import (
    AccessDenied,
    AliasNotFound,
    IntegrityFailure,
    InvalidInput,
    ModelFailure,
    ModelNotFound,
    NotFound,
    PredisError,
    Unavailable,
    Untrusted,
    VersionNotFound,
)
from predis.events import Bus, VersionRegistered
from predis.registry import Field, Registration, Registry, Signature, Version, dataset, evaluation
from predis.registry.columns import encode_table
from predis.registry.signature import PROBABILITY
from predis.registry.signing import Seals
from predis.serving.inspect_child import Loaded
from predis.state import ArtifactStore, Database
from predis.state.schema import aliases, models, versions
from predis.stats import Profile, binary_scores, count_blocks
from tests.registries import open_registry
from tests.toys import INPUTS, LABEL, booster, parquet, scores_of, table

TENANT, MODEL = "default", "churn"
only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
REFERENCE, HOLDOUT = table(600, seed=1), table(400, seed=2)


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def registry(database: Database, artifacts: ArtifactStore, clock: ManualClock, bus: Bus) -> Registry:
    return open_registry(database, artifacts, clock=clock, bus=bus)


@pytest.fixture
def register(registry: Registry, artifacts: ArtifactStore) -> Callable[..., Version]:
    """Registers a toy model; what is given as bytes or as a table is put into the artifact store first."""

    def call(model: str = MODEL, *, alias: str = "", tenant: str = TENANT, **changes: Any) -> Version:
        given: dict[str, Any] = {"format": "lightgbm", "files": {"model.txt": booster()}, **changes}
        given["files"] = {
            name: artifacts.put(content).digest if isinstance(content, bytes) else content
            for name, content in given["files"].items()
        }
        for name in ("reference", "holdout", "training"):
            if isinstance(given.get(name), pa.Table):
                given[name] = parquet(given[name])
            if isinstance(given.get(name), bytes):
                given[name] = artifacts.put(given[name]).digest
        return registry.register(tenant, Registration(model=model, **given), actor="alice", alias=alias)

    return call


Register = Callable[..., Version]


def rows(database: Database) -> int:
    """How much the registry holds: nothing may be left of a registration that failed."""
    with database.read() as connection:
        return sum(
            connection.scalar(sa.select(sa.func.count()).select_from(each)) or 0
            for each in (models, versions, aliases)
        )


class TestRegister:
    def test_a_file_alone(self, register: Register, registry: Registry, clock: ManualClock) -> None:
        version = register()
        assert (version.model, version.number, version.format) == (MODEL, 1, "lightgbm")
        assert version.signature.inputs == tuple(Field(n, "FP64", nullable=True) for n in ("x", "z", "kind"))
        assert (version.metrics, version.profile, version.lineage) == ({}, None, {})
        assert (version.created_at, version.created_by) == (clock.time_ns(), "alice")
        assert version.files[0].size_bytes == version.size_bytes == len(booster())
        assert registry.version(TENANT, MODEL) == version

    def test_with_everything(self, register: Register, registry: Registry) -> None:
        version = register(
            reference=REFERENCE, holdout=HOLDOUT, training=REFERENCE, label=LABEL, lineage={"commit": "abc"}
        )
        assert version.signature == Signature(
            (Field("x", "FP64"), Field("z", "FP64"), Field("kind", "BYTES", levels=("a", "b"))),
            (PROBABILITY,),
            "probability",
            "binary",
        )
        assert registry.version(TENANT, MODEL) == version
        assert version.lineage["commit"] == "abc"
        for name in ("reference", "holdout", "training"):
            assert registry.read_table(version.lineage[name]).num_rows in (400, 600)
        assert version.lineage["label"] == LABEL

    def test_metrics_are_the_model_s_own_on_the_holdout(self, register: Register) -> None:
        version = register(
            holdout=HOLDOUT, signature=Signature(INPUTS, (PROBABILITY,), "probability"), label=LABEL
        )
        expected = binary_scores(scores_of(HOLDOUT["x"].to_numpy()), HOLDOUT[LABEL].to_numpy())
        assert {name: version.metrics[name] for name in vars(expected)} == pytest.approx(vars(expected))
        assert version.metrics["auc"] > 0.8

    def test_the_profile_is_the_reference_s(self, register: Register) -> None:
        version = register(reference=REFERENCE, label=LABEL)
        assert version.profile is not None
        profile = Profile.from_dict(version.profile)
        assert profile.names == ("x", "z", "kind")
        assert (profile.rows, profile.labelled) == (600, 600)
        assert profile.positives == np.count_nonzero(REFERENCE[LABEL])
        matrix = encode_table(REFERENCE, version.signature.inputs)
        for mine, theirs in zip(profile.counts, profile.count(matrix), strict=True):
            assert mine.tolist() == theirs.tolist()
        assert profile.score_counts.sum() == 600

    def test_of_a_large_reference_a_sample_fixes_the_bins_and_all_rows_are_counted(
        self, register: Register, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(evaluation, "SAMPLE_ROWS", 101)
        monkeypatch.setattr(dataset, "BATCH_ROWS", 64)
        ordered = REFERENCE.sort_by("x")
        version = register(reference=ordered, label=LABEL)
        assert version.profile is not None
        profile = Profile.from_dict(version.profile)
        assert profile.bins[0].edges[::10] == (ordered["x"][0].as_py(), ordered["x"][-1].as_py())
        matrix = encode_table(ordered, version.signature.inputs)
        for mine, theirs in zip(profile.counts, profile.count(matrix), strict=True):
            assert mine.tolist() == theirs.tolist()
        assert profile.blocks.tolist() == count_blocks(profile.bins, matrix).tolist()
        assert profile.score_counts.sum() == profile.rows == profile.labelled == 600
        assert profile.positives == np.count_nonzero(ordered[LABEL])

    def test_what_only_one_batch_shows_of_an_input(
        self, register: Register, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dataset, "BATCH_ROWS", 64)
        z, kinds = REFERENCE["z"].to_pylist(), REFERENCE["kind"].to_pylist()
        z[500], kinds[599] = None, "0"
        reference = REFERENCE.set_column(1, "z", pa.array(z)).set_column(2, "kind", pa.array(kinds))
        assert register(reference=reference, label=LABEL).signature.inputs == (
            Field("x", "FP64"),
            Field("z", "FP64", nullable=True),
            Field("kind", "BYTES", levels=("0", "a", "b")),
        )

    def test_a_reference_without_labels(self, register: Register) -> None:
        version = register(reference=REFERENCE.drop_columns([LABEL]))
        assert version.profile is not None
        assert Profile.from_dict(version.profile).labelled == 0

    def test_numbers_go_up_and_the_same_file_may_come_again(self, register: Register) -> None:
        first, second = register(), register()
        assert (first.number, second.number) == (1, 2)
        assert first.digest == second.digest != register(files={"model.txt": booster("z")}).digest

    def test_the_file_s_name_counts(self, register: Register) -> None:
        assert register().digest != register(files={"other.txt": booster()}).digest

    def test_is_told_and_written_down(
        self, register: Register, database: Database, bus: Bus, clock: ManualClock
    ) -> None:
        told: list[VersionRegistered] = []
        bus.subscribe(VersionRegistered, told.append)
        version = register(alias="champion")
        assert told == [VersionRegistered(tenant=TENANT, at_ns=clock.time_ns(), model=MODEL, version=1)]
        written = Audit(database, clock).entries(TENANT)
        assert [(e["actor"], e["action"], e["target"]) for e in written] == [
            ("alice", "model.alias", "churn@champion"),
            ("alice", "model.register", "churn@1"),
        ]
        assert written[1]["detail"] == {"digest": version.digest}

    def test_scores_that_are_no_probabilities_have_no_log_loss(
        self, register: Register, registry: Registry
    ) -> None:
        """JSON has no NaN: PostgreSQL would refuse it, and so would every client."""
        content = booster().replace(b"objective=binary sigmoid:1", b"objective=regression")
        signature = Signature(INPUTS, (Field("prediction", "FP64"),), "prediction")
        register(files={"model.txt": content}, signature=signature, holdout=HOLDOUT, label=LABEL)
        metrics = registry.version(TENANT, MODEL).metrics
        assert metrics["auc"] > 0.8
        assert all(math.isfinite(value) for value in metrics.values())
        assert "log_loss" not in metrics


def booster_of(*names: str) -> bytes:
    return booster(names[0], names=names)


class TestSealed:
    """Versions that are programs: what is not sealed here is not handed out."""

    CODE: ClassVar = {
        "format": "python",
        "files": {"model.py": b"def predict(inputs): return inputs['x']"},
        "signature": Signature((Field("x", "FP64"),), (Field("y", "FP64"),), "y"),
    }

    @pytest.fixture
    def seals(self, tmp_path: Path) -> Seals:
        return Seals(tmp_path / "keys", allow_code=True)

    @pytest.fixture
    def registry(
        self, database: Database, artifacts: ArtifactStore, clock: ManualClock, seals: Seals
    ) -> Registry:
        return open_registry(database, artifacts, clock=clock, seals=seals)

    def test_at_registration(self, register: Register, registry: Registry, seals: Seals) -> None:
        version = register(**self.CODE)
        assert version.seal
        seals.check(version)
        assert registry.version(TENANT, MODEL) == version
        assert registry.read_files(version) == self.CODE["files"]
        assert registry.verify(TENANT, MODEL, reference=1)["ok"]

    def test_only_where_it_is_needed(self, register: Register) -> None:
        assert register().seal == ""

    @pytest.mark.parametrize(
        "change", [{"seal": None}, {"seal": "00" * 64}, {"format": "sklearn"}, {"model": "other"}], ids=str
    )
    def test_a_row_that_was_tampered_with(
        self, register: Register, registry: Registry, database: Database, change: dict[str, Any]
    ) -> None:
        register(**self.CODE)
        register("other")
        with database.write() as connection:
            connection.execute(
                versions.update()
                .where(versions.c.model == MODEL, versions.c.number == 1)
                .values(number=2, **change)
            )
        found = registry.version(TENANT, change.get("model", MODEL), reference=2)
        for use in (registry.read_files, registry.open):
            with pytest.raises(Untrusted, match=r"@2 \(\w+\) is a program"):
                use(found)
        report = registry.verify(TENANT, found.model, reference=2)
        assert not report["ok"]
        assert "not sealed" in report["files"][0]["problem"]

    def test_data_passed_off_as_code(
        self, register: Register, registry: Registry, database: Database
    ) -> None:
        register()
        with database.write() as connection:
            connection.execute(versions.update().values(format="python"))
        with pytest.raises(Untrusted):
            registry.read_files(registry.version(TENANT, MODEL))

    def test_code_is_refused_unless_allowed(
        self, database: Database, artifacts: ArtifactStore, clock: ManualClock, tmp_path: Path
    ) -> None:
        opened: list[str] = []
        registry = open_registry(
            database,
            artifacts,
            clock=clock,
            seals=Seals(tmp_path / "keys"),
            inspect=lambda kind, *_a, **_k: opened.append(kind),
        )
        files = {"model.py": artifacts.put(b"raise SystemExit").digest}
        wanted = Registration(model=MODEL, format="python", files=files)
        with pytest.raises(AccessDenied, match="allow_code"):
            registry.register(TENANT, wanted, actor="alice")
        assert (rows(database), opened) == (0, [])

    def test_pickles_that_name_what_they_must_not(self, register: Register, database: Database) -> None:
        exploit = b"cposix\nsystem\n(S'true'\ntR."
        with pytest.raises(Untrusted, match=r"posix\.system"):
            register(format="sklearn", files={"model.pkl": exploit})
        assert rows(database) == 0


class TestRefused:
    """Bad input is an error of the tree, and nothing of it stays."""

    CASES: Mapping[str, tuple[dict[str, Any], type[PredisError], str]] = {
        "name": ({"model": "Churn!"}, InvalidInput, "model's name"),
        "format": ({"format": "pickle"}, InvalidInput, "'pickle' is none of catboost, lightgbm, onnx"),
        "no file": ({"files": {}}, InvalidInput, "at least one file"),
        "two files": ({"files": {"a": booster(), "b": booster()}}, InvalidInput, "one file"),
        "file name": ({"files": {"a\0b": booster()}}, InvalidInput, "printable"),
        "file name that leads out": ({"files": {"../model.txt": booster()}}, InvalidInput, "not leave its own"),
        "file name of no text": ({"files": {"\ud800": booster()}}, InvalidInput, "printable"),
        "empty file name": ({"files": {"": booster()}}, InvalidInput, "printable"),
        "not a model": ({"files": {"m": b"tree\nnonsense"}}, ModelFailure, "LightGBM"),
        "not of the format": ({"files": {"m": b"{}"}}, ModelFailure, "not a LightGBM"),
        "half a model": ({"files": {"m": booster()[:700]}}, PredisError, "LightGBM|features"),
        "absent file": ({"files": {"m": "0" * 64}}, NotFound, "no file 000000000000"),
        "no digest": ({"files": {"m": "model.txt"}}, InvalidInput, "64 hexadecimal"),
        "absent reference": ({"reference": "0" * 64}, NotFound, "no file"),
        "reference of another kind": ({"reference": b"a,b\n1,2\n"}, InvalidInput, "reference is not a Parquet"),
        "half a reference": ({"reference": parquet(REFERENCE)[:-9]}, InvalidInput, "reference is not a Parquet"),
        "empty reference": ({"reference": REFERENCE.slice(0, 0)}, InvalidInput, "reference has no rows"),
        "holdout of another kind": ({"holdout": b"PAR1", "label": LABEL}, InvalidInput, "holdout is not a Parquet"),
        "a column twice": (
            {"reference": pa.table([[1.0], [2.0]], names=["x", "x"])}, InvalidInput, "reference is not a Parquet",
        ),
        "a column too many": ({"reference": REFERENCE}, InvalidInput, "the model has 3 features, its signature 4"),
        "another order": (
            {"reference": REFERENCE.select(["z", "x", "kind", LABEL]), "label": LABEL}, InvalidInput, "x, z, kind",
        ),
        "label of no column": (
            {"reference": REFERENCE, "label": "churned"}, InvalidInput, "the model has 3 features, its signature 4",
        ),
        "holdout without label": ({"holdout": HOLDOUT}, InvalidInput, "name the holdout's label"),
        "holdout with another label": ({"holdout": HOLDOUT, "label": "churned"}, InvalidInput, "name the holdout's label"),
        "labels of text": (
            {"holdout": HOLDOUT.append_column("l", pa.array([*"abcd"] * 100)), "label": "l"}, InvalidInput, "0 and 1 only",
        ),
        "labels of lists": (
            {"holdout": HOLDOUT.append_column("l", pa.array([[1]] * 400)), "label": "l"}, InvalidInput, "one value in each row",
        ),
        "labels of many kinds": ({"holdout": HOLDOUT, "label": "x"}, InvalidInput, "0 and 1 only"),
        "labels with gaps": (
            {"holdout": HOLDOUT.append_column("l", pa.array([None, *[1.0] * 399])), "label": "l"},
            InvalidInput, "0 and 1 only",
        ),
        "labels of one kind": (
            {"holdout": HOLDOUT.append_column("l", pa.array([1] * 400)), "label": "l"}, InvalidInput, "of both kinds",
        ),
        "holdout without a column": (
            {"holdout": HOLDOUT.drop_columns(["z"]), "label": LABEL}, InvalidInput, "no column 'z'",
        ),
        "a column of times": (
            {"reference": pa.table({"x": pa.array([0], pa.timestamp("s"))}), "files": {"m": booster_of("x")}},
            InvalidInput, "no tensor carries",
        ),
        "signature": (
            {"signature": Signature(INPUTS[:2], (PROBABILITY,), "probability")}, InvalidInput, "3 features, its signature 2",
        ),
        "lineage": ({"lineage": {"at": object()}}, InvalidInput, "lineage is not JSON"),
        "lineage with NaN": ({"lineage": {"auc": math.nan}}, InvalidInput, "lineage is not JSON"),
        "alias": ({"alias": "The best"}, InvalidInput, "alias's name"),
        "alias latest": ({"alias": "latest"}, InvalidInput, "'latest' always means"),
        "alias number": ({"alias": "12"}, InvalidInput, "'12' always means"),
        "long alias": ({"alias": "a" * 65}, InvalidInput, "at most 64"),
    }  # fmt: skip

    @only_sqlite
    @pytest.mark.parametrize("case", CASES)
    def test_and_nothing_stays(self, register: Register, database: Database, case: str) -> None:
        changes, error, message = self.CASES[case]
        with pytest.raises(error, match=message):
            register(**changes)
        assert rows(database) == 0

    def test_a_model_that_fails_on_its_reference(
        self, database: Database, artifacts: ArtifactStore, clock: ManualClock, bus: Bus
    ) -> None:
        class Broken(Loaded):
            def score(self, table: object) -> Any:
                raise ModelFailure("the model failed: no reason")

        told: list[object] = []
        bus.subscribe(VersionRegistered, told.append)
        registry = open_registry(database, artifacts, clock=clock, bus=bus, inspect=Broken)
        wanted = Registration(
            model=MODEL,
            format="lightgbm",
            files={"m": artifacts.put(booster()).digest},
            reference=artifacts.put(parquet(REFERENCE)).digest,
            label=LABEL,
        )
        with pytest.raises(ModelFailure, match="no reason"):
            registry.register(TENANT, wanted, actor="alice")
        assert rows(database) == 0
        assert told == []

    def test_parquet_that_was_damaged_on_the_way(self, registry: Registry, artifacts: ArtifactStore) -> None:
        whole, rng = parquet(REFERENCE), np.random.default_rng(0)
        for _ in range(60):
            content = bytearray(whole)
            for place in rng.integers(0, len(content), 6):
                content[place] ^= int(rng.integers(1, 256))
            digest = artifacts.put(bytes(content)).digest
            with contextlib.suppress(InvalidInput):
                registry.read_table(digest)


class TestProvenance:
    GIVEN: ClassVar = {
        "parameters": {"max_depth": 6, "eta": 0.1, "booster": "gbtree", "seeded": True},
        "revision": "4f1c2aa (dirty)",
    }

    def test_is_kept(self, register: Register, registry: Registry) -> None:
        register()
        version = register(**self.GIVEN, parent=1, lineage={"note": "by night"})
        expected = {**self.GIVEN, "parent": 1, "note": "by night"}
        assert version.lineage == expected
        assert registry.version(TENANT, MODEL).lineage == expected

    @only_sqlite
    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({"parent": 2}, VersionNotFound, "no version 2"),
            ({"parameters": {"": 1}}, InvalidInput, "parameter's name"),
            ({"parameters": {"x" * 129: 1}}, InvalidInput, "parameter's name"),
            ({"parameters": {"x": [1]}}, InvalidInput, "parameter 'x'"),
            ({"parameters": {"x": math.inf}}, InvalidInput, "parameter 'x'"),
            ({"parameters": {"x": "y" * 1_025}}, InvalidInput, "parameter 'x'"),
            ({"parameters": {f"{n}": n for n in range(257)}}, InvalidInput, "at most 256"),
            ({"revision": "a\0"}, InvalidInput, "revision"),
            ({"revision": "a" * 257}, InvalidInput, "revision"),
            ({"lineage": {"parent": 1}}, InvalidInput, "meaning of its own"),
            ({"lineage": {"reference": "x"}}, InvalidInput, "meaning of its own"),
            ({"lineage": {"x": "y" * 70_000}}, InvalidInput, "at most 65536 bytes"),
        ],
    )
    def test_that_is_none(
        self,
        register: Register,
        registry: Registry,
        given: dict[str, Any],
        error: type[PredisError],
        message: str,
    ) -> None:
        register()
        with pytest.raises(error, match=message):
            register(**given)
        assert len(registry.versions(TENANT, MODEL)) == 1


class TestConcurrent:
    def test_numbers_are_unique(
        self, registry: Registry, artifacts: ArtifactStore, database: Database, clock: ManualClock
    ) -> None:
        """Threads of two control processes register the same model, and each moves the same alias."""
        others = Database(database.url)
        second = open_registry(others, artifacts, clock=clock)
        digest = artifacts.put(booster()).digest
        wanted = Registration(model=MODEL, format="lightgbm", files={"model.txt": digest})

        def one(place: int) -> int:
            return (
                (registry, second)[place % 2]
                .register(TENANT, wanted, actor=f"{place}", alias="champion")
                .number
            )

        with ThreadPoolExecutor(8) as pool:
            numbers = list(pool.map(one, range(24)))
        others.close()
        assert sorted(numbers) == list(range(1, 25))
        assert [v.number for v in registry.versions(TENANT, MODEL)] == list(range(24, 0, -1))
        moved = [e["detail"] for e in Audit(database, clock).entries(TENANT) if e["action"] == "model.alias"]
        assert sorted(each["to"] for each in moved) == sorted(numbers)
        # Each move says what the one before it left: together they are one chain.
        assert sorted(each["from"] or 0 for each in moved) == sorted({0, *numbers} - {moved[0]["to"]})
        assert registry.aliases(TENANT, MODEL) == {"champion": moved[0]["to"]}

    KILLED = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from predis.clock import SystemClock
        from predis.events import Bus
        from predis.registry import Registration, Registry
        from predis.registry.signing import Seals
        from predis.serving.inspect_child import Loaded
        from predis.state import ArtifactStore, Database

        database, artifacts = Database(sys.argv[1]), ArtifactStore(sys.argv[2])
        registry = Registry(
            database, artifacts, clock=SystemClock(), bus=Bus(), inspect=Loaded, seals=Seals(Path(sys.argv[2]))
        )
        model, reference, start = open(sys.argv[3], "rb").read(), open(sys.argv[4], "rb").read(), int(sys.argv[5])
        for place in range(start, 10**6):
            file = model + b"# %d" % place
            wanted = Registration(
                model="churn", format="lightgbm", files={"model.txt": artifacts.put(file).digest}, label="label",
                reference=artifacts.put(reference).digest, holdout=artifacts.put(reference).digest,
            )
            version = registry.register("default", wanted, actor="child", alias="newest")
            print(version.number, flush=True)
        """
    )

    def test_a_kill_leaves_whole_versions(
        self, registry: Registry, database: Database, clock: ManualClock, tmp_path: Path
    ) -> None:
        (tmp_path / "model.txt").write_bytes(booster())
        (tmp_path / "reference.parquet").write_bytes(parquet(REFERENCE))
        acknowledged = 0
        for round_, pause_s in enumerate((0.003, 0.011)):
            command = [
                sys.executable, "-c", self.KILLED, database.url, str(tmp_path / "artifacts"), str(tmp_path / "model.txt"),
                str(tmp_path / "reference.parquet"), str(1_000 * round_),
            ]  # fmt: skip
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout is not None
                try:
                    for _ in range(4):
                        assert child.stdout.readline().strip()
                    time.sleep(pause_s)  # somewhere in the middle of the next
                finally:
                    child.kill()
                told = [int(line) for line in child.stdout.read().splitlines()]
            acknowledged = max([acknowledged + 4, *told])
            found = registry.versions(TENANT, MODEL)
            assert [v.number for v in found] == list(range(len(found), 0, -1))
            assert len(found) - acknowledged in (0, 1)
            acknowledged = len(found)
            for version in found:
                assert registry.verify(TENANT, MODEL, reference=version.number)["ok"]
                assert version.metrics["auc"] > 0.8
                assert registry.version(TENANT, MODEL, reference=version.number).profile is not None
            assert registry.aliases(TENANT, MODEL) == {"newest": len(found)}
        entries = Audit(database, clock).entries(TENANT)
        assert len([e for e in entries if e["action"] == "model.register"]) == acknowledged


class TestResolve:
    def test_number_alias_and_latest(self, register: Register, registry: Registry) -> None:
        register(alias="champion")
        register()
        for reference, number in ((1, 1), ("2", 2), ("champion", 1), ("latest", 2)):
            assert registry.resolve(TENANT, MODEL, reference=reference) == number
            assert registry.version(TENANT, MODEL, reference=reference).number == number

    @only_sqlite
    @pytest.mark.parametrize(
        ("reference", "error"),
        [
            (3, VersionNotFound),
            (0, VersionNotFound),
            ("9" * 30, VersionNotFound),
            ("9" * 5_000, VersionNotFound),
            (-1, AliasNotFound),
            ("", AliasNotFound),
            ("²", AliasNotFound),
            ("1.0", AliasNotFound),
            ("challenger", AliasNotFound),
            ("a\0", AliasNotFound),
            ("' OR 1=1 --", AliasNotFound),
        ],
    )
    def test_what_is_not_there(
        self, register: Register, registry: Registry, reference: str | int, error: type[NotFound]
    ) -> None:
        register(alias="champion")
        with pytest.raises(error):
            registry.version(TENANT, MODEL, reference=reference)

    def test_a_number_that_no_column_holds(self, register: Register, registry: Registry) -> None:
        register()
        for reference in ("9" * 30, 10**12, 2**31):
            with pytest.raises(VersionNotFound):
                registry.version(TENANT, MODEL, reference=reference)

    def test_no_such_model(self, register: Register, registry: Registry) -> None:
        register()
        for ask in (registry.version, registry.versions):
            with pytest.raises(ModelNotFound, match="'other'"):
                ask(TENANT, "other")
            with pytest.raises(ModelNotFound):
                ask("acme", MODEL)
        assert registry.aliases(TENANT, "other") == {}

    def test_a_name_that_no_database_holds(self, registry: Registry) -> None:
        with pytest.raises((ModelNotFound, InvalidInput)):
            registry.version(TENANT, "a\0b")

    def test_tenants_do_not_see_each_other(self, register: Register, registry: Registry) -> None:
        register()
        register(tenant="acme", alias="champion")
        assert [row["name"] for row in registry.models("acme")] == [MODEL]
        assert registry.aliases(TENANT, MODEL) == {}
        assert registry.version("acme", MODEL).number == 1


class TestAlias:
    def test_moves(
        self, register: Register, registry: Registry, database: Database, clock: ManualClock
    ) -> None:
        register()
        register()
        assert registry.alias(TENANT, MODEL, alias="champion", to="latest", actor="bob").number == 2
        assert registry.alias(TENANT, MODEL, alias="champion", to=1, actor="bob").number == 1
        registry.alias(TENANT, MODEL, alias="backup", to="champion", actor="bob")
        assert registry.aliases(TENANT, MODEL) == {"champion": 1, "backup": 1}
        written = [
            e["detail"] for e in Audit(database, clock).entries(TENANT) if e["action"] == "model.alias"
        ]
        assert written == [{"from": None, "to": 1}, {"from": 2, "to": 1}, {"from": None, "to": 2}]

    @only_sqlite
    @pytest.mark.parametrize("alias", ["latest", "3", "007", "", "Champion", "a b", "²", "a" * 65, "a" * 129])
    def test_what_cannot_be_one(self, register: Register, registry: Registry, alias: str) -> None:
        register()
        with pytest.raises(InvalidInput):
            registry.alias(TENANT, MODEL, alias=alias, to=1, actor="bob")
        assert registry.aliases(TENANT, MODEL) == {}

    def test_has_a_history(self, register: Register, registry: Registry, clock: ManualClock) -> None:
        register(alias="champion")
        register()
        clock.advance(1.0)
        registry.alias(TENANT, MODEL, alias="champion", to=2, actor="bob")
        registry.delete_alias(TENANT, MODEL, alias="champion", actor="eve")
        moves = registry.alias_moves(TENANT, MODEL)
        assert [(m["alias"], m["from"], m["to"], m["moved_by"]) for m in moves] == [
            ("champion", 2, None, "eve"),
            ("champion", 1, 2, "bob"),
            ("champion", None, 1, "alice"),
        ]
        assert moves[0]["moved_at"] == moves[1]["moved_at"] > moves[2]["moved_at"]
        assert len(registry.alias_moves(TENANT, MODEL, limit=1)) == 1
        assert registry.aliases(TENANT, MODEL) == {}
        with pytest.raises(ModelNotFound):
            registry.alias_moves("acme", MODEL)

    def test_that_is_not_there_cannot_be_deleted(self, register: Register, registry: Registry) -> None:
        register(alias="champion")
        for tenant, model, error in ((TENANT, MODEL, AliasNotFound), ("acme", MODEL, ModelNotFound)):
            with pytest.raises(error):
                registry.delete_alias(tenant, model, alias="other", actor="bob")
        assert len(registry.alias_moves(TENANT, MODEL)) == 1

    def test_the_longest(self, register: Register, registry: Registry) -> None:
        register(alias="a" * 64)
        assert registry.version(TENANT, MODEL, reference="a" * 64).number == 1

    def test_to_what_is_not_there(self, register: Register, registry: Registry) -> None:
        register()
        with pytest.raises(VersionNotFound):
            registry.alias(TENANT, MODEL, alias="champion", to=2, actor="bob")
        with pytest.raises(ModelNotFound):
            registry.alias(TENANT, "other", alias="champion", to=1, actor="bob")


class TestIntegrity:
    @staticmethod
    def change_byte(artifacts: ArtifactStore, version: Version) -> None:
        path = artifacts.local_path(version.files[0].digest)
        assert path is not None
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    def test_a_whole_version(self, register: Register, registry: Registry) -> None:
        version = register()
        assert registry.read_files(version) == {"model.txt": booster()}
        report = registry.verify(TENANT, MODEL, reference="latest")
        assert report == {
            "model": MODEL,
            "version": 1,
            "digest": version.digest,
            "ok": True,
            "files": [{"name": "model.txt", "digest": version.files[0].digest, "ok": True, "problem": ""}],
        }

    def test_a_changed_byte(self, register: Register, registry: Registry, artifacts: ArtifactStore) -> None:
        version = register()
        self.change_byte(artifacts, version)
        with pytest.raises(IntegrityFailure, match=version.files[0].digest[:12]):
            registry.read_files(version)
        report = registry.verify(TENANT, MODEL, reference=1)
        assert not report["ok"]
        assert "changed or damaged" in report["files"][0]["problem"]

    def test_a_deleted_file(self, register: Register, registry: Registry, artifacts: ArtifactStore) -> None:
        version = register()
        artifacts.delete(version.files[0].digest)
        with pytest.raises(NotFound):
            registry.read_files(version)
        assert not registry.verify(TENANT, MODEL, reference=1)["ok"]

    def test_a_changed_file_cannot_be_registered(
        self, register: Register, registry: Registry, artifacts: ArtifactStore
    ) -> None:
        version = register()
        self.change_byte(artifacts, version)
        with pytest.raises(IntegrityFailure):
            register(files={"model.txt": version.files[0].digest})

    @pytest.mark.parametrize("what", ["digest", "files"])
    def test_a_row_that_was_tampered_with(
        self, register: Register, registry: Registry, database: Database, what: str
    ) -> None:
        """The other file is in the store and whole; it is only not the one that was registered."""
        version, other = register(), register(files={"model.txt": booster("z")})
        changed = {"digest": other.digest} if what == "digest" else {"files": [vars(other.files[0])]}
        with database.write() as connection:
            connection.execute(versions.update().where(versions.c.number == 1).values(**changed))
        found = registry.version(TENANT, MODEL, reference=1)
        assert found != version
        with pytest.raises(IntegrityFailure, match="does not fit the version's digest"):
            registry.read_files(found)
        report = registry.verify(TENANT, MODEL, reference=1)
        assert not report["ok"]
        assert [file["ok"] for file in report["files"]] == [False, True]
        assert registry.verify(TENANT, MODEL, reference=2)["ok"]

    @only_sqlite
    def test_files_need_no_database(
        self, register: Register, artifacts: ArtifactStore, clock: ManualClock, tmp_path: Path
    ) -> None:
        version = register()
        away = Database(f"sqlite:///{tmp_path}/no-folder/state.sqlite")
        alone = open_registry(away, artifacts, clock=clock)
        assert alone.read_files(version) == {"model.txt": booster()}
        with pytest.raises(IntegrityFailure):
            alone.read_files(replace(version, digest="0" * 64))
        with pytest.raises(Unavailable):
            alone.models(TENANT)
        away.close()
