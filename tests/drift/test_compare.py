"""The comparison of any two tables: what broke is named, what moved is found, what did not is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from predis.drift import Comparison, Severity, compare
from predis.errors import InvalidInput


def columns(rows: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "age": rng.normal(40, 10, rows),
        "count": rng.poisson(3, rows),
        "zone": rng.choice(list("abcd"), rows),
        "member": rng.random(rows) < 0.3,
        "score": np.where(rng.random(rows) < 0.1, np.nan, rng.random(rows)),
    }


REFERENCE = columns(8_000, 1)


def against(**changed: Any) -> Comparison:
    current = {**columns(4_000, 2), **changed}
    return compare(REFERENCE, {name: values for name, values in current.items() if values is not None})


def test_the_same_source_has_not_drifted() -> None:
    for seed in range(2, 12):
        found = compare(REFERENCE, columns(4_000, seed))
        assert (found.severity, set(found.verdicts.values())) == (Severity.OK, {"stable"})
        assert found.summary == "Nothing has moved."
        assert str(found) == "Nothing has moved."


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"age": None}, "the column is not there any more"),
        ({"age": np.full(4_000, 40.0)}, "every value is 40; the reference had 8,000 different values"),
        ({"age": np.full(4_000, np.nan)}, "all values are missing; in the reference 0.0% were"),
        ({"age": [None] * 4_000}, "all values are missing; in the reference 0.0% were"),
        ({"age": [f"{value}" for value in range(4_000)]}, "the type changed from double to string"),
        ({"zone": ["a"] * 4_000}, "every value is 'a'; the reference had 4 categories"),
        (
            {"zone": [f"z{at}" for at in range(4_000)]},
            "4,000 categories are new, in 100% of the rows; the reference had 4",
        ),
        (
            {"zone": [*"abcd" * 900, *(f"z{at}" for at in range(400))]},
            "400 categories are new, in 10% of the rows; the reference had 4",
        ),
        ({"zone": list(range(4_000))}, "the type changed from string to int64"),
    ],
)
def test_a_break_is_named_as_what_it_is(changed: dict[str, Any], message: str) -> None:
    found = against(**changed)
    (name,) = changed
    first = found.features[0]
    assert (first.name, first.finding, first.severity) == (name, "break", Severity.CRITICAL)
    assert first.message == f"data break: {message}"
    assert set(found.verdicts.values()) == {"break", "stable"}
    assert found.summary == f"Broken data in {name}."


def test_drift_is_found_and_put_in_words() -> None:
    rng = np.random.default_rng(3)
    found = against(
        age=rng.normal(44, 10, 4_000), zone=rng.choice(list("abcd"), 4_000, p=[0.4, 0.2, 0.2, 0.2])
    )
    assert {name for name, what in found.verdicts.items() if what == "drift"} == {"age", "zone"}
    assert found.severity == Severity.WARNING
    messages = {feature.name: feature.message for feature in found.features}
    assert messages["age"].startswith("values are higher: ")
    assert messages["zone"].startswith("a holds 4")
    assert found.domain_auc is not None
    assert found.domain_auc[1] > 0.5
    assert [feature.severity for feature in found.features] == sorted(
        (feature.severity for feature in found.features), reverse=True
    )


def test_another_unit_is_guessed() -> None:
    found = against(age=columns(4_000, 2)["age"] * 365)
    assert "outside of the reference's range: another unit?" in found.features[0].message


def test_rising_missing_values_are_drift() -> None:
    score = columns(4_000, 2)["score"]
    score[:1_400] = score[2_000:3_400] = np.nan
    found = against(score=score)
    assert found.verdicts["score"] == "drift"
    assert found.features[0].message.startswith("missing values are ")


def test_seasons_of_the_reference_are_no_drift() -> None:
    def wave(start: int, rows: int) -> dict[str, Any]:
        time = np.arange(start, start + rows)
        noise = np.random.default_rng(start).normal(size=rows)
        return {"warm": np.sin(2 * np.pi * time / 4_000) + 0.2 * noise, "other": noise}

    found = compare(wave(0, 20_000), wave(21_000, 3_000))
    assert found.verdicts["warm"] in ("away", "stable")
    assert found.severity <= Severity.INFO
    assert {feature.name: feature.seasonal for feature in found.features} == {"warm": True, "other": False}


def test_rows_are_put_in_order() -> None:
    rng = np.random.default_rng(5)
    time = np.arange(12_000)
    table = pd.DataFrame({"at": time, "x": np.floor(time / 1_000) + rng.normal(size=12_000)})
    mixed = table.iloc[rng.permutation(12_000)]
    assert not compare(mixed, mixed).features[0].seasonal
    found = compare(mixed, mixed, by_time="at")
    assert [feature.name for feature in found.features] == ["x"]
    assert found.features[0].seasonal


def test_the_target_is_told_apart() -> None:
    current = columns(4_000, 2)
    current["member"] = np.random.default_rng(4).random(4_000) < 0.5
    found = compare(REFERENCE, current, target="member")
    assert (found.features[0].name, found.features[0].role, found.features[0].finding) == (
        "member",
        "target",
        "drift",
    )
    assert found.domain_auc is not None
    assert found.domain_auc[1] < 0.52  # the target is no input


def test_what_cannot_be_compared_is_said() -> None:
    extra = {
        "when": pd.date_range("2026-01-01", periods=4_000, freq="min"),
        "id": [f"user {at}" for at in range(4_000)],
        "list": [[1, 2]] * 4_000,
        "empty": [None] * 4_000,
    }
    found = compare({**columns(4_000, 1), **extra}, {**columns(4_000, 2), **extra, "new": np.ones(4_000)})
    skipped = {feature.name: feature.message for feature in found.features if feature.finding == "skipped"}
    assert set(skipped) == set(extra)
    assert "identifier" in skipped["id"]
    assert "by_time" in skipped["when"]
    assert found.severity == Severity.OK
    assert "columns the reference does not have: new" in found.notes


def test_few_rows_are_told() -> None:
    short = columns(150, 3)
    assert any("one window only" in note for note in compare(REFERENCE, short).notes)
    short["age"] += 20
    assert compare(REFERENCE, short).verdicts["age"] == "drift"
    tiny = compare(REFERENCE, columns(10, 3))
    assert tiny.severity == Severity.OK
    assert any("too few to judge" in note for note in tiny.notes)
    assert any(
        "windows of 1,000 rows" in note for note in compare(columns(3_000, 1), columns(3_000, 2)).notes
    )


def test_forms_of_tables(tmp_path: Path) -> None:
    frame = pd.DataFrame(REFERENCE)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, tmp_path / "a.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "a.csv")
    current = columns(4_000, 2)
    current["age"] = current["age"] + 5
    forms = [frame, table, table.to_batches()[0], REFERENCE, tmp_path / "a.parquet", str(tmp_path / "a.csv")]
    for form in forms:
        found = compare(form, current)
        assert [name for name, what in found.verdicts.items() if what == "drift"] == ["age"]
    pandas_categories = frame.astype({"zone": "category"})
    assert compare(pandas_categories, current).verdicts["zone"] == "stable"
    rng = np.random.default_rng(1)
    assert compare(rng.normal(size=(2_000, 3)), rng.normal(1.0, size=(2_000, 3))).verdicts == dict.fromkeys(
        ("f0", "f1", "f2"), "drift"
    )
    records = np.array([(1.0, 2), (2.0, 3)] * 500, dtype=[("a", "f8"), ("b", "i4")])
    assert set(compare(records, records).verdicts) == {"a", "b"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (3, "cannot read a int as a table"),
        (np.ones(5), "shape"),
        ({}, "without rows or columns"),
        ({"a": []}, "without rows or columns"),
        ("no/such/file.parquet", "there is no file"),
        ({"a": [1], "b": [1, 2]}, "cannot read"),
        (pa.table([[1], [2]], names=["a", "a"]), "twice: a"),
    ],
)
def test_what_is_no_table_is_refused(given: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        compare(given, REFERENCE)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no")
    (tmp_path / "b.csv").write_bytes(b"a,b\n1\n1,2,3\n")
    for name in ("a.parquet", "b.csv"):
        with pytest.raises(InvalidInput, match="neither a Parquet nor a CSV"):
            compare(tmp_path / name, REFERENCE)


def test_unknown_columns_are_refused() -> None:
    with pytest.raises(InvalidInput, match="target"):
        compare(REFERENCE, REFERENCE, target="no")
    with pytest.raises(InvalidInput, match="order rows by"):
        compare(REFERENCE, REFERENCE, by_time="no")


def test_as_json_and_as_a_page() -> None:
    rng = np.random.default_rng(3)
    found = against(
        age=rng.normal(46, 10, 4_000), zone=["a"] * 4_000, **{"<script>alert(1)</script>": np.ones(4_000)}
    )
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["severity"] == "critical"
    assert [feature["finding"] for feature in document["features"]][:2] == ["break", "drift"]
    page = found.html()
    assert page.startswith("<!doctype html>")
    assert "<svg" in page
    assert "<script" not in page
    assert "http" not in page
    assert "data break: every value is &#x27;a&#x27;" in page
    assert found._repr_html_() in page


def test_a_page_of_many_columns_stays_small() -> None:
    rng = np.random.default_rng(1)
    names = [f"f{at}" for at in range(300)]
    found = compare(
        dict(zip(names, rng.normal(size=(300, 1_000)), strict=True)),
        dict(zip(names, rng.normal(1.0, size=(300, 1_000)), strict=True)),
    )
    assert set(found.verdicts.values()) == {"drift"}
    assert len(found.html()) < 1_000_000
