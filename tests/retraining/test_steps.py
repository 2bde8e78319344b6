"""The steps of a run, each on its own: data in, document out, and safe to repeat."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from predis.clock import ManualClock
from predis.errors import InvalidInput, ModelFailure
from predis.registry import Field, Signature
from predis.retraining.config import RetrainingConfig
from predis.retraining.steps import Steps, _accepting
from predis.retraining.store import Run
from predis.state import Database
from tests import toys
from tests.toys import ENDPOINT, LABEL, MODEL, SECOND, TENANT, Installation

TESTS = Path(__file__).parents[1]
CONFIG = RetrainingConfig(train="toy_model:train", label=LABEL, holdout_share=0.25, least_rows=20)


@pytest.fixture
def installation(
    database: Database, home: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """An endpoint that answers with version 1, which goes by ``x``; the trainer finds ``toy_model``."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    flags = {"train_memory_bytes": 4 << 30, "train_timeout_s": 60.0}
    with toys.installed(database, home, clock, **flags) as found:
        found.register()
        found.create_endpoint()
        found.deploy(1)
        yield found


pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def run(**other: Any) -> Run:
    given = {
        "id": "retrain-1", "tenant": TENANT, "endpoint": ENDPOINT, "model": MODEL, "trigger": "manual", "state": "running",
        "step": "build", "detail": {}, "champion": 1, "challenger": None, "rollout": None, "created_at": 1, "ended_at": None,
        **other,
    }  # fmt: skip
    return Run(**given)


def steps(installation: Installation) -> Steps:
    return Steps(installation.platform._retraining_parts(), installation.settings)


def read(installation: Installation, digest: str) -> pa.Table:
    return installation.platform.registry.read_table(digest)


def put(installation: Installation, table: pa.Table) -> str:
    return installation.platform.artifacts.put(toys.parquet(table)).digest


def built(installation: Installation, train: pa.Table, test: pa.Table | None = None) -> dict[str, Any]:
    return {
        "train": put(installation, train),
        "test": put(installation, toys.table(800, seed=9, driver="z") if test is None else test),
    }


class TestBuild:
    def test_the_champions_set_and_the_labelled_log(self, installation: Installation) -> None:
        table = toys.table(200, seed=5, driver="z")
        ids = installation.send(table, version=1)
        installation.label(ids[:160], table.slice(0, 160))  # forty never get a label
        installation.digest()
        found = steps(installation).build(run(), CONFIG)
        assert (found["test_rows"], found["train_rows"], found["rows"]) == (40, 2_000 + 120, 2_160)
        train, test = read(installation, found["train"]), read(installation, found["test"])
        assert train.column_names == test.column_names == ["x", "z", "kind", LABEL]
        assert train.slice(0, 2_000).equals(toys.table(2_000, seed=1))
        assert train.slice(2_000).equals(table.slice(0, 120))
        assert test.equals(table.slice(120, 40))  # the newest share

    def test_by_event_time_not_by_arrival(self, installation: Installation) -> None:
        table = toys.table(100, seed=5)
        order = np.random.default_rng(1).permutation(100)
        for place in order:
            row = table.slice(place, 1)
            ids = installation.send(row, version=1, event_at=int(1_000 + place) * SECOND)
            installation.label(ids, row)
        installation.digest()
        found = steps(installation).build(run(), CONFIG)
        assert read(installation, found["test"]).equals(table.slice(75))
        assert found["test_from"].startswith("1970-01-01 00:17:55")
        assert found["test_to"].startswith("1970-01-01 00:18:19")

    def test_each_prediction_once(self, installation: Installation) -> None:
        """A caller who repeats a request under the same id has asked once."""
        table = toys.table(100, seed=5)
        ids = installation.send(table, version=1)
        features = toys.encode_table(table, toys.INPUTS)
        for place in range(50):
            payload = toys.record(ids[place], scores=[0.5], features=features[place : place + 1])
            installation.journal.append(payload)
        installation.label(ids, table)
        installation.digest()
        found = steps(installation).build(run(), CONFIG)
        assert (found["train_rows"], found["test_rows"]) == (2_075, 25)

    def test_each_prediction_once_in_the_next_generation_too(self, installation: Installation) -> None:
        """The renewed model's training set holds a part of the log already, and the log is there whole."""
        first = toys.table(100, seed=5, driver="z")
        installation.observe(first, version=1)
        work = steps(installation)
        built = work.build(run(), CONFIG)
        number = work.register(run(), CONFIG, built=built, trained=self.trained(installation))
        installation.clock.advance(1)
        second = toys.table(60, seed=6, driver="z")
        installation.observe(second, version=number, column="z")
        found = work.build(run(id="retrain-2", champion=number), CONFIG)
        assert (found["test_rows"], found["train_rows"]) == (40, 2_000 + 120)
        train = read(installation, found["train"])
        assert train.slice(2_000).equals(pa.concat_tables([first, second.slice(0, 20)]))
        assert read(installation, found["test"]).equals(second.slice(20))

    def test_another_endpoints_log_stays_in(self, installation: Installation) -> None:
        installation.observe(toys.table(100, seed=5), version=1)
        work = steps(installation)
        built = work.build(run(), CONFIG)
        number = work.register(run(), CONFIG, built=built, trained=self.trained(installation))
        installation.create_endpoint("second")
        table = toys.table(100, seed=7)
        ids = installation.send(table, version=number, endpoint="second")
        installation.label(ids, table, endpoint="second")
        installation.digest()
        found = work.build(run(id="retrain-2", endpoint="second", champion=number), CONFIG)
        assert found["train_rows"] == built["train_rows"] + 75

    def trained(self, installation: Installation) -> dict[str, Any]:
        digest = installation.platform.artifacts.put(toys.booster("z")).digest
        return {
            "format": "lightgbm",
            "file": "model.txt",
            "digest": digest,
            "notes": {},
            "train_seconds": 1.0,
        }

    def test_reads_the_journal_up_to_now(self, installation: Installation) -> None:
        table = toys.table(100, seed=5)
        ids = installation.send(table, version=1)
        installation.label(ids, table)  # nobody has read the journal yet
        with pytest.raises(InvalidInput, match="0 labelled predictions"):
            steps(installation).build(run(), CONFIG)  # read now, but the labels have not met them
        installation.platform.feedback.mature()
        assert steps(installation).build(run(), CONFIG)["rows"] == 2_100

    def test_too_few(self, installation: Installation) -> None:
        installation.observe(toys.table(70), version=1)
        with pytest.raises(
            InvalidInput, match=r"70 labelled predictions hold out 18; at least 20 are needed"
        ):
            steps(installation).build(run(), CONFIG)

    def test_a_champion_without_a_training_set(self, installation: Installation) -> None:
        installation.register(data=False)
        installation.observe(toys.table(100), version=2)
        assert steps(installation).build(run(champion=2), CONFIG)["train_rows"] == 75

    def test_texts_nobody_had_seen_are_learnt(self, installation: Installation) -> None:
        table = toys.table(100, seed=5)
        table = table.set_column(2, "kind", pa.array(["new"] * 100))
        features = np.column_stack([np.zeros((100, 2)), np.full(100, -1.0)])
        for place in range(100):
            payload = toys.record(
                f"p{place}", scores=[0.5], features=features[place : place + 1], at=installation.clock.time_ns() + place,
                extra=json.dumps([[0, 2, "new"]]).encode(),
            )  # fmt: skip
            installation.journal.append(payload)
        installation.label([f"p{place}" for place in range(100)], table)
        installation.digest()
        found = steps(installation).build(run(), CONFIG)
        assert set(read(installation, found["train"]).column("kind").to_pylist()) == {"a", "b", "new"}

    def test_the_label_must_not_be_an_input(self, installation: Installation) -> None:
        with pytest.raises(InvalidInput, match="'x' is an input"):
            steps(installation).build(run(), replace(CONFIG, label="x"))

    @pytest.mark.parametrize("label", ["score", "id", "event_at", "version"])
    def test_the_label_may_be_called_like_a_column_of_the_log(
        self, installation: Installation, label: str
    ) -> None:
        installation.register(data=False)
        installation.observe(toys.table(100), version=2)
        found = steps(installation).build(run(champion=2), replace(CONFIG, label=label))
        assert read(installation, found["train"]).column_names == ["x", "z", "kind", label]

    @pytest.mark.parametrize(
        ("training", "words"),
        [
            (toys.table(100).drop_columns(["z"]), "no column 'z'"),
            (toys.table(100).set_column(0, "x", pa.array(["a"] * 100)), "does not fit"),
        ],
    )
    def test_a_training_set_that_does_not_fit(
        self, installation: Installation, training: pa.Table, words: str
    ) -> None:
        registry, put_ = installation.platform.registry, installation.platform.artifacts.put
        registry.register(
            TENANT,
            toys.Registration(
                model=MODEL, format="lightgbm", files={"model.txt": put_(toys.booster()).digest},
                signature=toys.SIGNATURE, training=put(installation, training),
            ),
            actor="test",
        )  # fmt: skip
        installation.observe(toys.table(100), version=2)
        with pytest.raises(InvalidInput, match=words):
            steps(installation).build(run(champion=2), CONFIG)


class TestValidate:
    def check(self, installation: Installation, train: pa.Table, test: pa.Table | None = None) -> None:
        found = steps(installation).validate(run(), CONFIG, built=built(installation, train, test))
        assert found == {"validated_columns": 4}

    def test_passes(self, installation: Installation) -> None:
        self.check(installation, toys.table(300))

    def test_missing_values_and_new_texts_pass(self, installation: Installation) -> None:
        table = toys.table(4)
        table = table.set_column(0, "x", pa.array([1.0, None, None, 2.0]))
        table = table.set_column(2, "kind", pa.array(["a", "never seen", None, None]))
        table = table.set_column(3, LABEL, pa.array([0.0, 1.0, 1.0, 0.0]))
        self.check(installation, table)

    @pytest.mark.parametrize(
        ("column", "values", "words"),
        [
            (0, [None] * 40, "column 'x' holds no value at all"),
            (2, [None] * 40, "column 'kind' holds no value at all"),
            (3, [1.0] * 40, "label must hold both 0 and 1"),
            (3, [0.0] * 39 + [2.0], f"column '{LABEL}'"),
            (3, [0.0] * 39 + [None], f"column '{LABEL}'"),
        ],
    )
    @pytest.mark.parametrize("part", ["train", "test"])
    def test_failures_are_named(
        self, installation: Installation, *, column: int, values: list[Any], words: str, part: str
    ) -> None:
        table = toys.table(40)
        name = table.column_names[column]
        kind = pa.string() if name == "kind" else pa.float64()
        bad = table.set_column(column, name, pa.array(values, kind))
        parts = (bad, toys.table(40)) if part == "train" else (toys.table(40), bad)
        with pytest.raises(InvalidInput) as failed:
            self.check(installation, *parts)
        assert str(failed.value).startswith(f"the {part} set of 40 rows failed")
        assert words in str(failed.value)

    def test_a_missing_column_is_named(self, installation: Installation) -> None:
        with pytest.raises(InvalidInput, match="'z'"):
            self.check(installation, toys.table(40).drop_columns(["z"]))


class TestTrain:
    def train(self, installation: Installation, function: str, **other: Any) -> dict[str, Any]:
        config = replace(CONFIG, train=f"toy_model:{function}")
        return steps(installation).train(run(**other), config, built=built(installation, toys.table(50)))

    def test_makes_a_model(self, installation: Installation) -> None:
        found = self.train(installation, "train_z")
        assert (found["format"], found["file"]) == ("lightgbm", "model.txt")
        assert found["notes"] == {"rows": 50, "column": "z"}
        assert installation.platform.artifacts.read(found["digest"]) == toys.booster("z")
        assert found["train_seconds"] > 0
        json.dumps(found)  # it becomes a checkpoint

    @pytest.mark.parametrize(
        ("function", "words"),
        [
            ("fails", "toy_model:fails failed: ValueError: no luck with 50 rows"),
            ("hungry", "needed more than 4294967296 bytes (setting train_memory_bytes)"),
            ("is_killed", "died with status -9: about to die"),
            ("leaves", "died with status 3: that is enough for me"),
        ],
    )
    def test_failures_say_what_happened(self, installation: Installation, function: str, words: str) -> None:
        with pytest.raises(ModelFailure) as failed:
            self.train(installation, function)
        assert words in str(failed.value)

    def test_takes_too_long(self, installation: Installation) -> None:
        installation.settings = replace(installation.settings, train_timeout_s=2.0)
        with pytest.raises(ModelFailure, match=r"longer than 2 s \(setting train_timeout_s\)"):
            self.train(installation, "never_ends")

    def test_can_be_stopped(
        self, installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So that a control that is told to end need not wait for a train function."""
        monkeypatch.setenv("TOY_SIGNS", str(tmp_path))
        work, outcomes = steps(installation), []

        def train() -> None:
            config = replace(CONFIG, train="toy_model:waits_for_a_sign")
            with pytest.raises(ModelFailure, match="died with status -9"):
                work.train(run(), config, built=built(installation, toys.table(50)))
            outcomes.append("stopped")

        thread = threading.Thread(target=train)
        thread.start()
        while not list(tmp_path.glob("begun-*")):
            assert thread.is_alive()
            time.sleep(0.01)
        work.stop()
        thread.join(30)
        assert outcomes == ["stopped"]

    def test_begins_with_an_empty_folder_and_gives_way_to_serving(self, installation: Installation) -> None:
        """What a killed try has left is not mistaken for the work of this one."""
        left = installation.settings.home / "retraining" / "retrain-1" / "output"
        left.mkdir(parents=True)
        (left / "model.txt").write_text("half a model")
        notes = self.train(installation, "tells_of_its_folder")["notes"]
        assert notes["there"] == []
        assert notes["nice"] > os.nice(0)
        assert notes["parent"] == os.getpid()
        assert notes["session"] != os.getsid(0)  # what Ctrl-C reaches is control alone
        assert not (left.parent / "train.parquet").exists()


class TestCompare:
    def compare(
        self,
        installation: Installation,
        column: str,
        *,
        sign: float = 1.0,
        driver: str = "z",
        margin: float = 0.0,
    ) -> dict[str, Any]:
        digest = installation.platform.artifacts.put(toys.booster(column, sign=sign)).digest
        trained = {"format": "lightgbm", "file": "model.txt", "digest": digest, "notes": {}}
        data = built(installation, toys.table(100), toys.table(800, seed=9, driver=driver))
        config = replace(CONFIG, margin=margin)
        return steps(installation).compare(run(), config, built=data, trained=trained)

    def test_better(self, installation: Installation) -> None:
        found = self.compare(installation, "z")
        assert found["decision"] == "better"
        assert found["challenger_auc"] > 0.8
        assert found["champion_auc"] < 0.6
        assert 0 < found["low"] < found["difference"] < found["high"]
        assert found["difference"] == pytest.approx(found["challenger_auc"] - found["champion_auc"])
        assert found["p_value"] < 1e-6
        json.dumps(found)

    @pytest.mark.parametrize(
        ("column", "sign", "driver"), [("x", 1.0, "x"), ("x", -1.0, "x"), ("z", 1.0, "x")]
    )
    def test_not_better(self, installation: Installation, *, column: str, sign: float, driver: str) -> None:
        """The same model, an inverted one, one that goes by the wrong column."""
        assert self.compare(installation, column, sign=sign, driver=driver)["decision"] == "not better"

    def test_not_better_by_the_margin_asked_for(self, installation: Installation) -> None:
        assert self.compare(installation, "z", margin=0.45)["decision"] == "not better"

    def test_a_single_positive_proves_nothing(self, installation: Installation) -> None:
        test = toys.table(30, driver="z")
        test = test.set_column(3, LABEL, pa.array([1.0] + [0.0] * 29))
        digest = installation.platform.artifacts.put(toys.booster("z")).digest
        trained = {"format": "lightgbm", "file": "model.txt", "digest": digest, "notes": {}}
        data = built(installation, toys.table(50), test)
        found = steps(installation).compare(run(), CONFIG, built=data, trained=trained)
        assert (found["low"], found["decision"]) == (None, "not better")
        json.dumps(found, allow_nan=False)

    def test_a_file_that_is_no_model(self, installation: Installation) -> None:
        digest = installation.platform.artifacts.put(b"not a model").digest
        trained = {"format": "lightgbm", "file": "model.txt", "digest": digest, "notes": {}}
        with pytest.raises(ModelFailure):
            steps(installation).compare(
                run(), CONFIG, built=built(installation, toys.table(50)), trained=trained
            )


class TestRegister:
    def trained(self, installation: Installation) -> dict[str, Any]:
        digest = installation.platform.artifacts.put(toys.booster("z")).digest
        return {"format": "lightgbm", "file": "model.txt", "digest": digest, "notes": {"trees": 17}}

    def test_once_however_often_it_is_tried(self, installation: Installation) -> None:
        work, data = steps(installation), built(installation, toys.table(300, driver="z"))
        numbers = {
            work.register(run(), CONFIG, built=data, trained=self.trained(installation)) for _ in range(3)
        }
        assert numbers == {2}
        registry = installation.platform.registry
        assert registry.aliases(TENANT, MODEL)["challenger"] == 2
        assert [v.number for v in registry.versions(TENANT, MODEL)] == [2, 1]
        other = work.register(run(id="retrain-2"), CONFIG, built=data, trained=self.trained(installation))
        assert other == 3

    def test_says_where_it_comes_from(self, installation: Installation) -> None:
        data = built(installation, toys.table(300, driver="z"))
        steps(installation).register(
            run(trigger="drift"), CONFIG, built=data, trained=self.trained(installation)
        )
        version = installation.platform.registry.version(TENANT, MODEL, reference=2)
        assert version.lineage == {
            "parent": 1, "retraining": "retrain-1", "endpoint": ENDPOINT, "trigger": "drift", "train": "toy_model:train",
            "notes": {"trees": 17}, "reference": data["train"], "holdout": data["test"], "training": data["train"],
            "label": LABEL,
        }  # fmt: skip
        assert version.metrics["auc"] > 0.8  # of the held-out rows
        assert version.profile is not None
        assert version.created_by == "retraining"

    def test_clients_do_not_notice(self, installation: Installation) -> None:
        """An input that might be missing may still be, though the training set happened to have them all."""
        data = built(installation, toys.table(300, driver="z"))
        number = steps(installation).register(run(), CONFIG, built=data, trained=self.trained(installation))
        version = installation.platform.registry.version(TENANT, MODEL, reference=number)
        assert [f.nullable for f in version.signature.inputs] == [f.nullable for f in toys.INPUTS]
        mine = (Field("a", "FP64"), Field("b", "FP64", nullable=True))
        theirs = Signature(
            (Field("b", "FP64"), Field("a", "FP64", nullable=True)), (Field("o", "FP64"),), "o"
        )
        assert [f.nullable for f in _accepting(mine, theirs.inputs)] == [True, True]


class TestRollout:
    def test_once_however_often_it_is_tried(self, installation: Installation) -> None:
        installation.register("z", data=False)
        work, config = steps(installation), replace(CONFIG, plan={"bake_s": 3.0})
        first = work.rollout(run(), config, challenger=2)
        assert first == work.rollout(run(), config, challenger=2)
        rollout = installation.platform.rollouts.get(TENANT, first)
        assert (rollout.candidate, rollout.baseline, rollout.created_by) == (2, 1, "retraining")
        assert (rollout.plan["bake_s"], rollout.plan["strategy"]) == (3.0, "canary")

    def test_waits_while_another_holds_the_endpoint(self, installation: Installation) -> None:
        installation.register("z", data=False)
        installation.register("z", data=False)
        other = installation.start(2)
        work = steps(installation)
        assert work.rollout(run(), CONFIG, challenger=3) is None
        installation.platform.rollouts.wish(TENANT, other.id, wish="abort", actor="test")
        installation.platform.rollouts.tick()
        assert work.rollout(run(), CONFIG, challenger=3) == other.id + 1
