from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from predis.errors import InvalidInput, MissingExtra, ModelFailure, Untrusted
from predis.registry.signature import Field
from predis.serving import inspection
from predis.serving.inspect_child import Loaded
from predis.serving.inspection import Inspected, Inspector
from predis.settings import Settings
from tests.serving.helpers import SCORE, booster_text, signature, table
from tests.serving.models import NAMES, TABLE, estimator_file, kinds, numbers

INPUTS = (Field("a", "FP64", nullable=True), Field("b", "FP64"), Field("kind", "INT64"), Field("c", "FP64"))
ONE = signature(Field("x", "FP64"), outputs=(SCORE,))
ROWS = pa.table({"x": [1.0, 2.0]})


@pytest.fixture
def opened() -> Iterator[list[Inspected]]:
    """Models to close at the test's end, however it ends."""
    found: list[Inspected] = []
    yield found
    for model in found:
        model.close()


def inspect(
    kind: str, files: dict[str, bytes], *, timeout_s: float = 60, memory_bytes: int = 8 << 30, **given: Any
) -> Inspected:
    inspector = Inspector(timeout_s=timeout_s, memory_bytes=memory_bytes)
    return inspector(kind, files, **{"signature": None, "inputs": (), **given})


def python(code: str, **given: Any) -> Inspected:
    return inspect("python", {"model.py": code.encode()}, signature=ONE, **given)


def folders() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("predis-inspect-")}


def ended(pid: int) -> bool:
    """Whether a process, of whoever, ends within half a minute."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 30)[0])
    finally:
        os.close(descriptor)


class TestAnswers:
    def test_as_a_model_in_this_process_does(self) -> None:
        features = table(100)
        rows = pa.table({name: features[:, at] for at, name in enumerate(("a", "b", "kind", "c"))})
        here = Loaded("lightgbm", {"m": booster_text()}, signature=None, inputs=())
        with inspect("lightgbm", {"m": booster_text()}) as model:
            assert model.signature == here.signature
            for part in (rows, rows.slice(10, 20), rows.slice(0, 1)):
                np.testing.assert_array_equal(model.score(part), here.score(part))

    def test_texts_and_nulls(self) -> None:
        rows = pa.table(
            {**dict(zip(NAMES, numbers(40).T, strict=True)), "kind": pa.array(kinds(40, more=("new", None)))}
        )
        contents = {"m.joblib": estimator_file("table", "joblib")}
        with inspect("sklearn", contents, inputs=TABLE) as model:
            here = Loaded("sklearn", contents, signature=None, inputs=TABLE)
            np.testing.assert_array_equal(model.score(rows), here.score(rows))

    def test_long_tables_in_blocks(self) -> None:
        here = Loaded(
            "python", {"model.py": b"def predict(inputs): return inputs['x']"}, signature=ONE, inputs=()
        )
        values = np.arange(20_001.0)
        np.testing.assert_array_equal(here.score(pa.table({"x": values})), values)
        here.close()

    def test_several_files_in_folders(self) -> None:
        contents = {
            "model.py": b"from .lib.words import answer\ndef predict(inputs): return [answer] * 2",
            "lib/words.py": b"answer = 7",
        }
        with inspect("python", contents, signature=ONE) as model:
            assert model.score(ROWS).tolist() == [7, 7]

    def test_signature_and_inputs_are_passed_on(self) -> None:
        with inspect("lightgbm", {"m": booster_text()}, inputs=INPUTS) as model:
            assert model.signature.inputs == INPUTS
        wanted = signature(*INPUTS)
        with inspect("lightgbm", {"m": booster_text()}, signature=wanted) as model:
            assert model.signature == wanted

    def test_limits_are_settings(self, settings: Settings) -> None:
        assert Inspector.of(settings)._timeout_s == settings.inspect_timeout_s


class TestErrors:
    """They come back as what they were."""

    def test_of_loading(self) -> None:
        before = folders()
        with pytest.raises(ModelFailure, match="not a LightGBM text model"):
            inspect("lightgbm", {"m": b"nothing"})
        with pytest.raises(InvalidInput, match="4 features, its signature 1"):
            inspect("lightgbm", {"m": booster_text()}, signature=ONE)
        with pytest.raises(Untrusted, match=r"posix\.system"):
            inspect("sklearn", {"m.pkl": b"cposix\nsystem\n(S'true'\ntR."})
        assert folders() == before

    def test_of_scoring_leave_the_model_open(self, opened: list[Inspected]) -> None:
        opened.append(model := inspect("lightgbm", {"m": booster_text()}))
        with pytest.raises(InvalidInput, match="no column 'a'"):
            model.score(ROWS)
        rows = pa.table({name: [0.5, 1.5] for name in ("a", "b", "kind", "c")})
        assert model.score(rows).shape == (2,)

    def test_of_the_model(self, opened: list[Inspected]) -> None:
        opened.append(model := python("def predict(inputs): raise ValueError('no luck')"))
        with pytest.raises(ModelFailure, match="ValueError: no luck"):
            model.score(ROWS)

    def test_of_a_missing_library(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "onnxruntime.py").write_text("raise ImportError")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(MissingExtra, match="onnxruntime"):
            inspect("onnx", {"m": b"x"})


class TestContained:
    """Whatever a model does to its process, this one gets an error."""

    @pytest.mark.parametrize(
        ("code", "says"),
        [
            ("os.kill(os.getpid(), signal.SIGSEGV)", "ended its process by SIGSEGV"),
            ("os.abort()", "ended its process by SIGABRT"),
            ("os._exit(7)", "ended its process with status 7"),
            ("print('I leave', flush=True); os._exit(0)", "with status 0: I leave"),
            ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
            ("sys.exit('bye')", r"wanted to end the process|SystemExit"),
        ],
    )
    @pytest.mark.parametrize("where", ["loading", "scoring"])
    def test_a_process_that_dies(self, code: str, says: str, where: str, opened: list[Inspected]) -> None:
        head = "import os, signal, sys\n"
        if where == "loading":
            with pytest.raises(ModelFailure, match=says):
                python(f"{head}def load(folder): {code}\ndef predict(inputs): ...")
            return
        opened.append(model := python(f"{head}def predict(inputs): {code}"))
        with pytest.raises(ModelFailure, match=says):
            model.score(ROWS)

    def test_a_model_that_never_ends(self) -> None:
        with pytest.raises(
            ModelFailure, match=r"loading the python model took longer than 2 s \(setting inspect_timeout_s"
        ):
            python("while True: pass", timeout_s=2)

    def test_cpu_time_is_limited_anew_for_each_question(self) -> None:
        code = "import resource\ndef predict(inputs): return [float(resource.getrlimit(resource.RLIMIT_CPU)[0])] * 2"
        busy = code + "\nimport time\ndef load(folder):\n    while time.process_time() < 4: pass"
        with python(code, timeout_s=30) as model, python(busy, timeout_s=30) as tired:
            assert 121 <= model.score(ROWS)[0] < tired.score(ROWS)[0]

    def test_a_model_that_eats_memory(self, opened: list[Inspected]) -> None:
        with pytest.raises(ModelFailure, match=r"MemoryError|inspect_memory_bytes"):
            python("block = bytearray(4 << 30)\ndef predict(inputs): ...", memory_bytes=2 << 30)
        opened.append(model := python("def predict(inputs): bytearray(4 << 30)", memory_bytes=2 << 30))
        with pytest.raises(ModelFailure, match=r"MemoryError|inspect_memory_bytes"):
            model.score(ROWS)

    def test_a_model_that_fills_the_disk(self, opened: list[Inspected]) -> None:
        code = "def predict(inputs):\n    with open('large', 'wb') as file:\n        file.truncate(1 << 32)\n    return inputs['x']"
        opened.append(model := python(code, memory_bytes=1 << 31))
        with pytest.raises(ModelFailure, match=r"SIGXFSZ|File too large"):
            model.score(ROWS)

    def test_what_a_model_prints_is_no_answer(self, opened: list[Inspected]) -> None:
        opened.append(
            model := python(
                "print('{\"answer\": 1}')\ndef predict(inputs):\n    print('x' * 100_000)\n    return inputs['x']"
            )
        )
        assert model.score(ROWS).tolist() == [1, 2]

    @pytest.mark.parametrize(
        "answer",
        ["b'no json\\n'", 'b\'{"answer": "../../../etc/passwd"}\\n\'', "b'[1]\\n'", "b'{\"answer\": 7}\\n'"],
    )
    def test_a_model_that_answers_for_its_process(self, answer: str, opened: list[Inspected]) -> None:
        code = (
            f"import os, sys\ndef predict(inputs):\n    os.write(int(sys.argv[1]), {answer})\n    os._exit(0)"
        )
        opened.append(model := python(code))
        with pytest.raises(ModelFailure):
            model.score(ROWS)

    @pytest.mark.parametrize(
        "written",
        [
            "numpy.zeros(1).tofile('scores')", "numpy.zeros(100_000).tofile('scores')", "os.symlink('/dev/zero', 'scores')", "os.mkfifo('scores')",
            "os.mkdir('scores')", "pass",
        ],
    )  # fmt: skip
    def test_scores_that_are_none(self, written: str, opened: list[Inspected]) -> None:
        code = (
            f"import os, sys, numpy\ndef predict(inputs):\n    {written}\n"
            "    os.write(int(sys.argv[1]), b'{\"answer\": 2}\\n')\n    os._exit(0)"
        )
        opened.append(model := python(code))
        with pytest.raises(ModelFailure, match="bytes of scores for 2 rows"):
            model.score(ROWS)

    def test_the_environments_secrets_stay_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PREDIS_STATE_URL", "postgresql://admin:secret@db")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        code = "import os\nassert 'secret' not in str(dict(os.environ)), os.environ\ndef predict(inputs): return inputs['x']"
        python(code).close()

    def test_temporary_files_end_with_it(self) -> None:
        code = "import tempfile\nfile = tempfile.mkstemp(prefix='left-behind-')[1]\ndef predict(inputs): return [float(len(file))] * 2"
        before = set(os.listdir(tempfile.gettempdir()))
        python(code).close()
        left = set(os.listdir(tempfile.gettempdir())) - before
        assert not [name for name in left if name.startswith("left-behind-")]

    def test_files_do_not_shadow_modules(self) -> None:
        contents = {
            "model.py": b"import numpy\ndef predict(inputs): return numpy.ones(2)",
            "numpy.py": b"raise SystemExit",
            "json.py": b"1/0",
        }
        with inspect("python", contents, signature=ONE) as model:
            assert model.score(ROWS).tolist() == [1, 1]


class TestEnd:
    def test_of_the_process_and_what_it_started(self) -> None:
        code = (
            "import subprocess, sys\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            "def predict(inputs): return [float(child.pid)] * 2"
        )
        before = folders()
        with python(code) as model:
            pid = int(model.score(ROWS)[0])
        assert ended(pid)
        assert folders() == before
        model.close()

    @pytest.mark.parametrize("dies", [False, True])
    def test_is_made_once(self, dies: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """The number of a process that ended may be given to another: that one must not be hit."""
        ended: list[int] = []
        kill = os.killpg
        monkeypatch.setattr(os, "killpg", lambda pid, number: (ended.append(pid), kill(pid, number)))
        model = python(f"import os\ndef predict(inputs): {'os._exit(1)' if dies else 'return inputs[0]'}")
        with pytest.raises(ModelFailure):
            model.score(ROWS)
        model.close()
        model.close()
        assert len(ended) == 1

    def test_when_this_process_is_killed(self) -> None:
        """Nobody is left to end it; the socket's other end is gone, and it goes too."""
        program = (
            "import sys\nfrom predis.serving.inspection import Inspector\n"
            "model = Inspector(timeout_s=60, memory_bytes=8 << 30)('lightgbm', {'m': open(sys.argv[1], 'rb').read()}, signature=None, inputs=())\n"
            "print(model._process._process.pid, flush=True)\nsys.stdin.read()"
        )
        with tempfile.NamedTemporaryFile() as file:
            file.write(booster_text())
            file.flush()
            with subprocess.Popen(
                [sys.executable, "-c", program, file.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as parent:
                assert parent.stdout is not None
                child = int(parent.stdout.readline())
                parent.send_signal(signal.SIGKILL)
        assert ended(child)


def test_inspecting_imports_no_model_library() -> None:
    program = (
        "import sys\nfrom predis.serving.inspection import Inspector\n"
        "import predis.app.control\n"
        "print([m for m in ('lightgbm', 'onnxruntime', 'sklearn', 'torch', 'xgboost', 'catboost') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LANG", "C.UTF-8")
    found = inspection._environment(tmp_path)
    assert found["LANG"] == "C.UTF-8"
    assert found["HOME"] == str(tmp_path)
    assert found["OMP_NUM_THREADS"] == "1"
