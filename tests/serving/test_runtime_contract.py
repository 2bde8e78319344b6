"""What every runtime keeps, whatever its library: the same tests over one model of each kind."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from predis.errors import InvalidInput, MissingExtra, ModelFailure, Untrusted
from predis.registry.signature import NUMPY_OF, Signature
from predis.serving import runtimes
from predis.serving.inputs import Inputs, sample, stack
from predis.serving.inspection import Inspector
from tests.serving.models import CASES, Case, Outputs


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def runtime(case: Case) -> Iterator[runtimes.Runtime]:
    found = case.load()
    yield found
    found.close()


def assert_same(found: Outputs, right: Outputs, tolerance: float) -> None:
    assert len(found) == len(right)
    for mine, own in zip(found, right, strict=True):
        assert mine.shape == own.shape
        if mine.dtype == np.object_ or not tolerance:
            np.testing.assert_array_equal(mine, own)
        else:
            np.testing.assert_allclose(mine, own, rtol=tolerance, atol=tolerance)


def part(inputs: Inputs, rows: slice) -> Inputs:
    tensors = (
        None if inputs.tensors is None else {name: tensor[rows] for name, tensor in inputs.tensors.items()}
    )
    features = inputs.features[rows]
    return Inputs(len(features), features, {}, tensors)


@pytest.mark.parametrize("rows", [1, 2, 7, 256])
def test_answers_what_its_library_answers(case: Case, runtime: runtimes.Runtime, rows: int) -> None:
    inputs = case.rows(rows, rows)
    assert_same(runtimes.run(runtime, inputs), case.expected(inputs), case.tolerance)


def test_keeps_its_signature(case: Case, runtime: runtimes.Runtime) -> None:
    for rows in (1, 3):
        for output, field in zip(
            runtimes.run(runtime, case.rows(rows, 1)), runtime.signature.outputs, strict=True
        ):
            assert output.shape == (rows, *field.shape[1:])
            assert output.dtype == np.dtype(NUMPY_OF[field.datatype])
    scores = runtimes.scores_of(runtime.signature, runtimes.run(runtime, case.rows(3, 1)))
    assert (scores.dtype, scores.shape) == (np.float64, (3,))


def test_takes_the_form_it_says(case: Case, runtime: runtimes.Runtime) -> None:
    assert runtime.takes == ("matrix" if case.rows(1, 0).tensors is None else "tensors")


def test_is_loaded_again_with_the_signature_it_was_found_to_have(
    case: Case, runtime: runtimes.Runtime
) -> None:
    again = runtimes.load(
        case.kind, case.contents(), signature=type(runtime.signature).from_dict(runtime.signature.to_dict())
    )
    inputs = case.rows(5, 3)
    assert again.takes == runtime.takes
    assert_same(runtimes.run(again, inputs), runtimes.run(runtime, inputs), 0.0)
    again.close()


def test_a_row_is_answered_alike_in_any_company(case: Case, runtime: runtimes.Runtime) -> None:
    inputs = case.rows(256, 4)
    together = runtimes.run(runtime, inputs)
    for size in (1, 2, 7, 100):
        parts = [part(inputs, slice(at, at + size)) for at in range(0, 3 * size, size)]
        joined = runtimes.run(runtime, stack(parts))
        alone = [runtimes.run(runtime, one) for one in parts]
        for at, output in enumerate(together):
            assert_same([joined[at]], [output[: len(joined[at])]], case.tolerance)
            assert_same([np.concatenate([found[at] for found in alone])], [joined[at]], case.tolerance)


def test_does_not_change_what_it_is_given(case: Case, runtime: runtimes.Runtime) -> None:
    inputs = case.rows(20, 5)
    right = runtimes.run(runtime, inputs)
    for array in (inputs.features, *(inputs.tensors or {}).values()):
        array.flags.writeable = False
    assert_same(runtimes.run(runtime, inputs), right, 0.0)
    kept = [output.copy() for output in right]
    runtimes.run(runtime, case.rows(20, 6))
    assert_same(right, kept, 0.0)


# Forests set the interpreter's warning filters, which are everybody's, while they predict.
@pytest.mark.filterwarnings("ignore:`sklearn.utils.parallel.delayed` should be used with:UserWarning")
def test_answers_several_threads_as_it_answers_one(case: Case, runtime: runtimes.Runtime) -> None:
    given = [case.rows(rows, rows) for rows in (1, 1, 2, 9, 40)]
    right = [runtimes.run(runtime, inputs) for inputs in given]

    def work(at: int) -> None:
        chosen = at % len(given)
        assert_same(runtimes.run(runtime, given[chosen]), right[chosen], 0.0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(100)))


def test_can_be_warmed(case: Case, runtime: runtimes.Runtime) -> None:
    """Before it has seen any data: with rows of zeros."""
    for rows in (1, 3):
        assert len(runtimes.run(runtime, sample(runtime.signature, runtime.takes, rows=rows))[0]) == rows


def test_closes_once(case: Case) -> None:
    runtime, inputs = case.load(), case.rows(2, 0)
    runtime.close()
    runtime.close()
    with pytest.raises(ModelFailure, match="was closed"):
        runtimes.run(runtime, inputs)


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\x00" * 100, b"PK\x03\x04" + b"\xff" * 50, b"{", b"tree\n", b"CBM1", b"\x80\x04."],
)
@pytest.mark.parametrize("kind", ["catboost", "lightgbm", "onnx", "sklearn", "torch", "xgboost"])
def test_another_file_is_no_model(kind: str, content: bytes) -> None:
    with pytest.raises(ModelFailure):
        runtimes.load(kind, {"m": content})


@pytest.mark.parametrize(
    ("case_name", "package", "extra"),
    [
        ("catboost", "catboost", "catboost"),
        ("lightgbm", "lightgbm", "lightgbm"),
        ("onnx", "onnxruntime", "onnx"),
        ("sklearn in pickle", "sklearn", "sklearn"),
        ("sklearn in skops", "skops", "sklearn"),
        ("torchscript", "torch", "torch"),
        ("torch.export", "torch", "torch"),
        ("xgboost", "xgboost", "xgboost"),
    ],
)
def test_without_its_library(
    case_name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[case_name]
    contents = case.contents()
    library = getattr(import_module(f"predis.serving.runtimes.{case.kind}"), "_library", None)
    if library is not None:
        library.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'predis\[{extra}\]'"):
        runtimes.load(case.kind, contents, signature=case.signature, inputs=case.inputs)
    monkeypatch.undo()
    case.load().close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "catboost of texts",
        "lightgbm",
        "onnx of texts",
        "sklearn in joblib",
        "sklearn in skops",
        "torchscript",
        "torch.export",
        "xgboost",
    ],
)
def test_damaged_files_end_in_answers_or_errors(name: str) -> None:
    """Cut short or with a few bytes changed they may load, or fail, or take the process down that they are inspected in: never this one."""
    case, random = CASES[name], np.random.default_rng(0)
    runtime = case.load()
    runtime.close()
    inspect, table = (
        Inspector(timeout_s=8, memory_bytes=8 << 30),
        _as_table(case.rows(20, 0), runtime.signature),
    )
    ((file, whole),) = case.contents().items()
    for attempt in range(6):
        content = bytearray(whole)
        if attempt < 2:
            del content[int(len(content) * (0.4 + attempt / 4)) :]
        for place in random.integers(0, len(content), 0 if attempt < 2 else 4):
            content[place] ^= int(random.integers(1, 256))
        with (
            contextlib.suppress(ModelFailure, Untrusted, InvalidInput),
            inspect(case.kind, {file: bytes(content)}, signature=runtime.signature, inputs=()) as found,
        ):
            assert found.score(table).shape == (20,)


def _as_table(inputs: Inputs, signature: Signature) -> pa.Table:
    if inputs.tensors is None:
        return pa.table(dict(zip(signature.feature_names, inputs.features.T, strict=True)))
    return pa.table({name: pa.array(tensor.tolist()) for name, tensor in inputs.tensors.items()})


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    "name",
    [
        "catboost of texts",
        "lightgbm",
        "onnx",
        "python class",
        "sklearn in skops",
        "sklearn of tables",
        "torchscript",
        "torch.export",
        "xgboost",
    ],
)
def test_unloading_gives_the_memory_back(name: str) -> None:
    case = CASES[name]
    inputs = case.rows(20, 0)

    def use() -> None:
        runtime = case.load()
        runtimes.run(runtime, inputs)
        runtime.close()

    def grown() -> int:
        before = _resident_bytes()
        for _use in range(50):
            use()
        return _resident_bytes() - before

    for _warm in range(5):
        use()
    found = grown()
    if found >= 12_000_000:  # what is lost is lost each time; what an allocator keeps, it keeps once
        found = grown()
    assert found < 12_000_000, f"{found / 50e3:.0f} kB each time"


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
