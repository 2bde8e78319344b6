from __future__ import annotations

import gc
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas
import pytest

from predis.errors import InvalidInput, MissingExtra, ModelFailure
from predis.registry.signature import Field
from predis.serving import runtimes
from predis.serving.runtimes import lightgbm as runtime_module
from predis.serving.runtimes.lightgbm import FEW_ROWS, LightGBM
from predis.state.records import Matrix
from tests.serving.helpers import COLUMNS, SCORE, booster_text, signature, table
from tests.serving.models import matrix

OBJECTIVES = ["binary", "multiclass", "regression", "poisson", "cross_entropy"]
INPUTS = (
    Field("a", "FP64", nullable=True),
    Field("b", "FP64"),
    Field("kind", "BYTES", levels=("p", "q", "r", "s", "t")),
    Field("c", "INT64"),
)


def load(objective: str = "binary") -> LightGBM:
    found = runtimes.load("lightgbm", {"model.txt": booster_text(objective)})
    assert isinstance(found, LightGBM)
    return found


def expected(objective: str, features: Matrix) -> Matrix:
    """LightGBM's own answer."""
    booster = lightgbm.Booster(model_str=booster_text(objective).decode())
    return np.asarray(booster.predict(features, num_threads=1))


class TestParity:
    @pytest.mark.parametrize("objective", OBJECTIVES)
    @pytest.mark.parametrize("rows", [1, 2, 3, 500])
    def test_with_the_library(self, objective: str, rows: int) -> None:
        features = table(rows, seed=rows)
        (found,) = load(objective).predict(matrix(features))
        np.testing.assert_array_equal(found, expected(objective, features))
        assert found.shape == ((rows, 3) if objective == "multiclass" else (rows,))

    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_one_row_at_a_time_is_the_same_as_all_at_once(self, objective: str) -> None:
        features, model = table(200), load(objective)
        assert FEW_ROWS < 200
        (many,) = model.predict(matrix(features))
        single = np.concatenate([model.predict(matrix(features[at : at + 1]))[0] for at in range(200)])
        np.testing.assert_array_equal(single, many)

    @pytest.mark.parametrize("rows", [1, 4])
    @pytest.mark.parametrize("value", [np.nan, -1.0, 99.0, 0.0, 1e308, -1e308])
    def test_for_missing_unseen_and_extreme_values(self, value: float, rows: int) -> None:
        for column in range(len(COLUMNS)):
            features = np.nan_to_num(table(rows))
            features[:, column] = value
            (found,) = load().predict(matrix(features))
            np.testing.assert_array_equal(found, expected("binary", features))

    def test_an_unseen_level_is_as_good_as_missing(self) -> None:
        unseen, missing = table(100), table(100)
        unseen[:, 2], missing[:, 2] = -1, np.nan
        np.testing.assert_array_equal(load().predict(matrix(unseen))[0], load().predict(matrix(missing))[0])

    def test_features_in_any_memory_layout(self) -> None:
        features = table(60)
        (right,) = load().predict(matrix(features))
        for other in (
            np.asfortranarray(features),
            np.repeat(features, 2, axis=1)[:, ::2],
            np.repeat(features, 2, 0)[::2],
        ):
            np.testing.assert_array_equal(load().predict(matrix(other))[0], right)
            np.testing.assert_array_equal(load().predict(matrix(other[7:8]))[0], right[7:8])

    def test_answers_do_not_share_memory(self) -> None:
        model, features = load(), table(2)
        (first,) = model.predict(matrix(features[:1]))
        kept = first.copy()
        model.predict(matrix(features[1:]))
        np.testing.assert_array_equal(first, kept)

    @pytest.mark.parametrize("objective", ["binary", "multiclass"])
    def test_from_several_threads(self, objective: str) -> None:
        """Single rows share one buffer, behind a lock; batches do not."""
        model, features = load(objective), table(300, seed=9)
        right = expected(objective, features)

        def work(seed: int) -> int:
            random = np.random.default_rng(seed)
            wrong = 0
            for at in random.integers(0, len(features), 150):
                size = int(random.choice([1, 1, 1, 40]))
                (found,) = model.predict(matrix(features[at : at + size]))
                wrong += not np.array_equal(found, right[at : at + size])
            return wrong

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(work, range(8))) == 0


class TestSignature:
    @pytest.mark.parametrize(
        ("objective", "output"),
        [
            ("binary", Field("probability", "FP64")),
            ("cross_entropy", Field("probability", "FP64")),
            ("regression", Field("prediction", "FP64")),
            ("poisson", Field("prediction", "FP64")),
            ("multiclass", Field("probabilities", "FP64", (-1, 3))),
        ],
    )
    def test_made_of_the_model(self, objective: str, output: Field) -> None:
        found = load(objective).signature
        assert found.inputs == tuple(Field(name, "FP64", nullable=True) for name in COLUMNS)
        assert (found.outputs, found.score) == ((output,), output.name)

    def test_made_of_the_references_columns(self) -> None:
        found = runtimes.load("lightgbm", {"m": booster_text()}, inputs=INPUTS).signature
        assert found.inputs == INPUTS

    def test_given_whole(self) -> None:
        wanted = signature(Field("all", "FP32", (-1, 4)))
        assert runtimes.load("lightgbm", {"m": booster_text()}, signature=wanted).signature is wanted

    @pytest.mark.parametrize("count", [1, 3, 5])
    def test_of_another_number_of_columns(self, count: int) -> None:
        inputs = tuple(Field(f"x{i}", "FP64") for i in range(count))
        for given in ({"inputs": inputs}, {"signature": signature(*inputs)}):
            with pytest.raises(InvalidInput, match=f"the model has 4 features, its signature {count}"):
                runtimes.load("lightgbm", {"m": booster_text()}, **given)

    def test_in_another_order(self) -> None:
        """Names tell the columns apart; by position the model would quietly read one for the other."""
        swapped = (INPUTS[1], INPUTS[0], *INPUTS[2:])
        for given in ({"inputs": swapped}, {"signature": signature(*swapped)}):
            with pytest.raises(InvalidInput, match="in the model's order: a, b, kind, c"):
                runtimes.load("lightgbm", {"m": booster_text()}, **given)

    def test_with_more_outputs_than_the_model(self) -> None:
        wanted = signature(*INPUTS, outputs=(SCORE, Field("label", "INT64")))
        with pytest.raises(InvalidInput, match="1 output, its signature 2"):
            runtimes.load("lightgbm", {"m": booster_text()}, signature=wanted)


class TestLevels:
    """A model trained on a pandas table keeps the order of each categorical column: a code is the place in it."""

    @staticmethod
    def trained(categories: list[Any], *, rows: int = 200) -> tuple[bytes, Any]:
        random = np.random.default_rng(0)
        values = [categories[at] for at in random.integers(0, len(categories), rows)]
        frame = pandas.DataFrame(
            {"x": random.normal(size=rows), "kind": pandas.Categorical(values, categories)}
        )
        labels = frame["x"] + (frame["kind"] == categories[0]) > 0.5
        parameters = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_per_group": 5}
        booster = lightgbm.train(parameters, lightgbm.Dataset(frame, labels.astype(float)), 10)
        return booster.model_to_string().encode(), (booster, frame)

    def test_are_the_models_own(self) -> None:
        text, (booster, frame) = self.trained(["w", "u", "v"])
        reference = (Field("x", "FP64"), Field("kind", "BYTES", nullable=True, levels=("u", "v")))
        model = runtimes.load("lightgbm", {"m": text}, inputs=reference)
        assert model.signature.inputs == (reference[0], replace(reference[1], levels=("w", "u", "v")))
        codes = np.column_stack([frame["x"], frame["kind"].cat.codes])
        np.testing.assert_array_equal(model.predict(matrix(codes))[0], booster.predict(frame))

    def test_without_a_reference(self) -> None:
        text, _trained = self.trained(["w", "u", "v"])
        assert runtimes.load("lightgbm", {"m": text}).signature.inputs == (
            Field("x", "FP64", nullable=True),
            Field("kind", "BYTES", nullable=True, levels=("w", "u", "v")),
        )

    @pytest.mark.parametrize(
        "reference",
        [
            (Field("x", "FP64"), Field("kind", "INT64")),
            (Field("x", "BYTES", levels=("a",)), Field("kind", "BYTES", levels=("u",))),
        ],
        ids=str,
    )
    def test_of_other_columns_than_the_references(self, reference: tuple[Field, ...]) -> None:
        text, _trained = self.trained(["w", "u", "v"])
        with pytest.raises(InvalidInput, match="trained on 1 categorical columns"):
            runtimes.load("lightgbm", {"m": text}, inputs=reference)

    def test_that_are_numbers(self) -> None:
        """Their codes are not their values; asked with the values, the model would quietly answer for other ones."""
        text, _trained = self.trained([30, 10, 20])
        with pytest.raises(InvalidInput, match="give each of them as texts"):
            runtimes.load("lightgbm", {"m": text}, inputs=(Field("x", "FP64"), Field("kind", "INT64")))

    def test_in_a_signature_are_the_signatures(self) -> None:
        text, _trained = self.trained([30, 10, 20])
        wanted = signature(Field("x", "FP64"), Field("kind", "BYTES", levels=("30", "10", "20")))
        assert runtimes.load("lightgbm", {"m": text}, signature=wanted).signature is wanted

    def test_damaged(self) -> None:
        text, _trained = self.trained(["w", "u"])
        with pytest.raises(ModelFailure, match="pandas_categorical is damaged"):
            runtimes.load("lightgbm", {"m": text.replace(b'[["w"', b'[["w')})

    def test_texts_need_them(self) -> None:
        inputs = (*INPUTS[:2], Field("kind", "BYTES"), INPUTS[3])
        with pytest.raises(InvalidInput, match="'kind' holds free texts"):
            runtimes.load("lightgbm", {"m": booster_text()}, inputs=inputs)


class TestNotAModel:
    @pytest.mark.parametrize(
        "text", [b"", b"{}", b"\x80\x04\x95", b"tree", b"treeish\nend of trees", b"\ntree\n" + booster_text()]
    )
    def test_another_file(self, text: bytes) -> None:
        with pytest.raises(ModelFailure, match="not a LightGBM text model"):
            runtimes.load("lightgbm", {"m": text})

    @pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.6])
    def test_one_cut_short(self, share: float) -> None:
        """LightGBM would end the process over some of these, or quietly load the trees that are left."""
        text = booster_text()
        with pytest.raises(ModelFailure, match="cut short"):
            runtimes.load("lightgbm", {"m": text[: int(share * text.index(b"end of trees"))]})
        with pytest.raises(ModelFailure, match="cut short"):
            runtimes.load("lightgbm", {"m": text[: text.index(b"\nTree=5")]})

    @pytest.mark.parametrize(
        ("pattern", "replacement"),
        [
            (rb"num_leaves=7", rb"num_leaves=9"),
            (rb"num_leaves=7", rb"num_leaves=700"),
            (rb"leaf_value=", rb"leaf_valuX="),
            (rb"threshold=\S+ ", rb"threshold="),
            (rb"max_feature_idx=3", rb"max_feature_idx=9"),
            (rb"num_class=1\n", rb""),
            (rb"tree_sizes=.*", rb"tree_sizes=1 2 3"),
        ],
    )
    def test_a_damaged_one_fails_or_loads_but_never_ends_the_process(
        self, pattern: bytes, replacement: bytes
    ) -> None:
        text, count = re.subn(pattern, replacement, booster_text())
        assert count
        if b"tree_sizes" in pattern:  # they are not needed
            assert runtimes.load("lightgbm", {"m": text}).predict(matrix(np.zeros((1, 4))))
        else:
            with pytest.raises(ModelFailure, match="LightGBM"):
                runtimes.load("lightgbm", {"m": text})


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime_module._library.cache_clear()
    monkeypatch.setattr(runtime_module, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'predis\[lightgbm\]'"):
        load()
    monkeypatch.undo()
    assert load()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_closing_gives_the_memory_back() -> None:
    """A leaked booster of this size would cost several MB each."""
    text = booster_text("regression", rounds=170, leaves=127, rows=20_000)
    assert len(text) > 2_000_000

    def resident_bytes() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def use() -> None:
        model = runtimes.load("lightgbm", {"m": text})
        model.predict(matrix(np.zeros((1, 4))))
        model.predict(matrix(np.zeros((2, 4))))

    for _warm in range(5):
        use()
    before = resident_bytes()
    for _use in range(50):
        use()
    assert resident_bytes() - before < 30_000_000


def test_closing_twice_is_once() -> None:
    model = LightGBM(booster_text())
    model.close()
    model.close()
