from __future__ import annotations

import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predis.errors import InvalidInput, ModelFailure
from predis.registry.signature import Field, Signature
from predis.serving import runtimes
from predis.serving.runtimes.python import Python
from tests.serving.helpers import signature
from tests.serving.models import tensors

ONE = signature(Field("x", "FP64"), outputs=(Field("y", "FP64"),))
ROWS = tensors(x=[1.0, 2.0])


def load(code: str, wanted: Signature | None = ONE, **files: str) -> Python:
    contents = {
        name.replace("__", "/") + ".py": text.encode() for name, text in {"model": code, **files}.items()
    }
    found = runtimes.load("python", contents, signature=wanted)
    assert isinstance(found, Python)
    return found


def packages() -> list[str]:
    return [name for name in sys.modules if name.startswith("_predis_model_")]


class TestPredict:
    def test_a_function(self) -> None:
        (found,) = runtimes.run(
            load("def predict(inputs): return inputs['x'] * 2"), tensors(x=np.array([1.0, 2.0]))
        )
        assert found.tolist() == [2, 4]

    @pytest.mark.parametrize(
        "answer", ["[1.0, 2.0]", "(1, 2)", "{'y': [1, 2]}", "np.array([[1], [2]])", "np.float32([1, 2])"]
    )
    def test_answers_in_many_forms(self, answer: str) -> None:
        model = load(f"import numpy as np\ndef predict(inputs): return {answer}")
        assert runtimes.run(model, ROWS)[0].tolist() == [1, 2]

    def test_several_outputs_by_name_in_any_order(self) -> None:
        wanted = signature(Field("x", "FP64"), outputs=(Field("y", "INT64"), Field("word", "BYTES")))
        model = load("def predict(inputs): return {'word': ['a', 'ü'], 'y': [3, 4]}", wanted)
        assert [output.tolist() for output in runtimes.run(model, ROWS)] == [[3, 4], ["a", "ü"]]

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            ("{'z': [1, 2]}", r"answered \['z'\], its signature has \['y'\]"),
            ("{'y': [1, 2], 'z': [1, 2]}", r"answered \['y', 'z'\]"),
            ("[1.0]", "for 2 rows"),
            ("None", "for 2 rows"),
            ("[[1, 2], [3]]", "the model failed"),
            ("1 / 0", "ZeroDivisionError"),
            ("exit()", "wanted to end the process"),
        ],
    )
    def test_answers_that_are_none(self, answer: str, says: str) -> None:
        with pytest.raises(ModelFailure, match=says):
            runtimes.run(load(f"def predict(inputs): return {answer}"), ROWS)

    def test_cannot_change_what_it_is_given(self) -> None:
        given = tensors(x=np.array([1.0, 2.0]))
        with pytest.raises(ModelFailure, match="read-only"):
            runtimes.run(load("def predict(inputs): inputs['x'] += 1; return inputs['x']"), given)
        assert given.tensors is not None
        assert given.tensors["x"].flags.writeable

    def test_need_not_know_of_threads(self) -> None:
        model = load(
            "import threading\n"
            "inside = threading.Lock()\n"
            "def predict(inputs):\n"
            "    assert inside.acquire(blocking=False)\n"
            "    threading.Event().wait(0.001)\n"
            "    inside.release()\n"
            "    return inputs['x']\n"
        )
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: runtimes.run(model, tensors(x=np.zeros(1))), range(40)))

    def test_bytes_that_are_no_texts(self) -> None:
        wanted = signature(Field("image", "BYTES", raw=True), outputs=(Field("size", "FP64"),))
        model = load("def predict(inputs): return [float(len(image)) for image in inputs['image']]", wanted)
        assert runtimes.run(model, tensors(image=[b"\xff\x00\xfe", b""]))[0].tolist() == [3, 0]


class TestLoad:
    def test_is_called_once_with_the_files(self) -> None:
        model = load(
            "loaded = []\ndef load(folder): loaded.append(sorted(p.name for p in folder.rglob('*.py')))\n"
            "def predict(inputs): return inputs['x']",
            lib__helper="",
        )
        runtimes.run(model, ROWS)
        assert model.module.loaded == [["helper.py", "model.py"]]

    def test_a_class_is_made_once(self) -> None:
        model = load(
            "class Model:\n"
            "    def load(self, folder): self.calls = 0\n"
            "    def predict(self, inputs): self.calls += 1; return inputs['x'] * self.calls"
        )
        assert runtimes.run(model, ROWS)[0].tolist() == [1, 2]
        assert runtimes.run(model, ROWS)[0].tolist() == [2, 4]

    def test_two_versions_do_not_see_each_others_files(self) -> None:
        code = "from . import words\nfrom .lib.deep import value\ndef predict(inputs): return [words.ONE + value] * 2"
        first = load(code, words="ONE = 1", lib__deep="value = 10")
        second = load(code, words="ONE = 2", lib__deep="value = 20")
        assert [runtimes.run(model, ROWS)[0][0] for model in (first, second, first)] == [11, 22, 11]

    @pytest.mark.parametrize(
        ("code", "says"),
        [
            ("def predict(", "failed while loading: SyntaxError"),
            ("1 / 0", "failed while loading: ZeroDivisionError"),
            ("import no_such_package", "failed while loading: ModuleNotFoundError"),
            ("import sys; sys.exit(3)", "failed while loading: SystemExit"),
            ("def load(folder): raise OSError('no weights')\ndef predict(i): ...", "OSError: no weights"),
            ("def score(inputs): ...", r"needs a function predict\(inputs\)"),
            ("predict = 7", "needs a function"),
            ("class Model:\n    def __init__(self, needed): ...", "TypeError"),
        ],
    )
    def test_that_fails(self, code: str, says: str) -> None:
        before = packages()
        with pytest.raises(ModelFailure, match=says):
            load(code)
        assert packages() == before

    def test_without_its_module(self) -> None:
        with pytest.raises(InvalidInput, match=r"needs a file 'model.py', got \['predict.py'\]"):
            runtimes.load("python", {"predict.py": b""}, signature=ONE)


class TestSignature:
    CODE = "SIGNATURE = {}\ndef predict(inputs): return inputs['x']"

    def test_is_needed(self) -> None:
        before = packages()
        with pytest.raises(InvalidInput, match="needs a signature"):
            load("def predict(inputs): return inputs['x']", None)
        with pytest.raises(InvalidInput, match="needs a list of inputs"):
            load(self.CODE, None)
        assert packages() == before

    def test_of_the_module(self) -> None:
        code = self.CODE.replace("{}", repr(ONE.to_dict()))
        assert load(code, None).signature == ONE

    def test_given_counts_more(self) -> None:
        assert load(self.CODE).signature is ONE


def test_closing_forgets_code_and_files() -> None:
    model = load("from . import words\ndef predict(inputs): return inputs['x']", words="")
    folder, package = Path(model.module.__file__).parent, model.module.__package__
    assert folder.exists()
    assert f"{package}.words" in sys.modules
    model.close()
    model.close()
    assert not folder.exists()
    assert not [name for name in packages() if name.startswith(package)]
    assert str(folder) not in sys.path_importer_cache


def test_a_forgotten_model_leaves_no_files() -> None:
    model = load("def predict(inputs): return inputs['x']")
    folder = Path(model.module.__file__).parent
    del model
    gc.collect()
    assert not folder.exists()


def test_loading_in_several_threads() -> None:
    barrier = threading.Barrier(4)

    def work(value: int) -> Any:
        barrier.wait()
        model = load(f"def predict(inputs): return [{value}.0] * 2")
        found = runtimes.run(model, ROWS)[0].tolist()
        model.close()
        return found

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [[float(value)] * 2 for value in range(4)]
