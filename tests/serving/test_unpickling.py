from __future__ import annotations

import bz2
import contextlib
import copyreg
import gzip
import io
import lzma
import operator
import os
import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import joblib
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from sklearn.linear_model import LogisticRegression
from sklearn.utils import all_estimators

from predis.errors import ModelFailure, PredisError, Untrusted
from predis.serving import unpickling
from tests.serving.models import estimator, numbers


def joblib_bytes(thing: Any, compress: Any = 0) -> bytes:
    sink = io.BytesIO()
    joblib.dump(thing, sink, compress=compress)
    return sink.getvalue()


class Calls:
    """Pickles as a call of ``function``: what every exploit is."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def named(module: str, name: str, *arguments: Any) -> bytes:
    """A pickle that calls what stands under a name, which need not exist here."""

    def text(value: str) -> bytes:
        return pickle.SHORT_BINUNICODE + bytes([len(value.encode())]) + value.encode()

    call = b"".join(pickle.dumps(argument, 2)[2:-1] for argument in arguments)
    return b"\x80\x04" + text(module) + text(name) + pickle.STACK_GLOBAL + b"(" + call + b"tR."


class TestReads:
    @pytest.mark.parametrize("kind", ["matrix", "classes", "regressor", "table"])
    @pytest.mark.parametrize("protocol", [3, 4, 5])
    def test_estimators(self, kind: str, protocol: int) -> None:
        found = unpickling.load(pickle.dumps(estimator(kind), protocol))
        assert type(found) is type(estimator(kind))
        assert repr(found) == repr(estimator(kind))

    @pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)], ids=str)
    def test_joblibs_files(self, compress: Any) -> None:
        found = unpickling.load(joblib_bytes(estimator("regressor"), compress))
        rows = numbers(20)
        np.testing.assert_allclose(found.predict(rows), estimator("regressor").predict(rows), rtol=1e-12)

    @pytest.mark.parametrize(
        "array",
        [
            np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(["a", None, 1.5], np.object_),
            np.empty((0, 3)), np.array(7.0), np.array(["ab", "c"]), np.zeros(2, [("a", "i4"), ("b", "f8")]), np.zeros((2, 0, 3)),
            np.array(["2024-01-01"], "datetime64[D]"), np.arange(3, dtype=">f8"), np.array([True, False]),
        ],
        ids=lambda array: str(array.dtype),
    )  # fmt: skip
    def test_arrays_among_other_things(self, array: Any) -> None:
        """Their bytes lie between joblib's opcodes: one miscounted and nothing after it can be read."""
        for content in (
            joblib_bytes({"x": array, "y": [array, "end"]}),
            pickle.dumps({"x": array, "y": [array, "end"]}),
        ):
            found = unpickling.load(content)
            assert found["y"][1] == "end"
            for one in (found["x"], found["y"][0]):
                np.testing.assert_array_equal(one, array)
                assert (one.dtype.newbyteorder("="), one.shape) == (
                    array.dtype.newbyteorder("="),
                    array.shape,
                )

    def test_arrays_can_be_written_to(self) -> None:
        unpickling.load(joblib_bytes(np.zeros(3)))[0] = 1.0

    @pytest.mark.parametrize(
        "thing",
        [np.log1p, scipy.special.expit, np.float32(1.5), np.random.default_rng(1), np.random.RandomState(1), {1, 2}, slice(1, 2)],
        ids=lambda thing: type(thing).__name__,
    )  # fmt: skip
    def test_what_estimators_hold(self, thing: Any) -> None:
        assert type(unpickling.load(pickle.dumps(thing))) is type(thing)

    @pytest.mark.slow
    def test_every_estimator_of_scikit_learn(self) -> None:
        random = np.random.default_rng(0)
        rows, labels = np.abs(random.normal(size=(60, 6))), random.integers(0, 2, 60)
        loaded = 0
        for _name, kind in all_estimators():
            try:
                fitted = kind().fit(rows, labels)
            except Exception:
                continue
            for content in (pickle.dumps(fitted), joblib_bytes(fitted)):
                assert type(unpickling.load(content)) is kind
                loaded += 1
        assert loaded > 250


class TestRefuses:
    """Each of these runs something the moment ``pickle.load`` reads it."""

    CALLS: tuple[tuple[str, str], ...] = (
        ("os", "system"), ("posix", "system"), ("nt", "system"), ("os", "popen"), ("subprocess", "Popen"), ("subprocess", "run"),
        ("builtins", "eval"), ("builtins", "exec"), ("builtins", "compile"), ("builtins", "__import__"), ("builtins", "getattr"),
        ("builtins", "setattr"), ("builtins", "open"), ("builtins", "type"), ("builtins", "map"), ("builtins", "globals"),
        ("builtins", "breakpoint"), ("__builtin__", "eval"), ("importlib", "import_module"), ("runpy", "run_path"), ("pty", "spawn"),
        ("operator", "attrgetter"), ("operator", "methodcaller"), ("operator", "itemgetter"), ("functools", "partial"),
        ("functools", "reduce"), ("types", "FunctionType"), ("types", "CodeType"), ("code", "interact"), ("shutil", "rmtree"),
        ("socket", "socket"), ("ctypes", "CDLL"), ("pickle", "loads"), ("_pickle", "loads"), ("marshal", "loads"), ("codecs", "open"),
        ("webbrowser", "open"), ("timeit", "timeit"), ("cProfile", "run"), ("bdb", "Bdb"), ("asyncio", "run"), ("antigravity", "fly"),
        ("numpy", "load"), ("numpy", "memmap"), ("numpy", "fromfile"), ("numpy", "save"), ("numpy", "vectorize"), ("numpy", "frompyfunc"),
        ("numpy._core", "_ufunc_reconstruct"), ("numpy.core", "_ufunc_reconstruct"), ("numpy.lib._datasource", "DataSource"),
        ("numpy.testing._private.utils", "runstring"), ("numpy.testing", "measure"), ("numpy.f2py.crackfortran", "myeval"),
        ("numpy.f2py.__main__", "main"), ("numpy.f2py.capi_maps", "load_f2cmap_file"), ("numpy.ma", "compress_rows"),
        ("joblib", "load"), ("joblib.memory", "Memory"), ("joblib.numpy_pickle", "NDArrayWrapper"), ("joblib.numpy_pickle", "load"),
        ("joblib.parallel", "Parallel"), ("joblib.externals.loky", "get_reusable_executor"), ("cloudpickle.cloudpickle", "_make_function"),
        ("scipy.stats._distn_infrastructure", "rv_sample"), ("scipy.stats._continuous_distns", "norm_gen"), ("scipy.io", "loadmat"),
        ("scipy.io._netcdf", "netcdf_file"), ("scipy._lib._ccallback", "LowLevelCallable"), ("scipy.sparse", "load_npz"),
        ("pandas", "read_pickle"), ("pandas", "eval"), ("pandas", "read_csv"), ("pandas.io.pytables", "HDFStore"),
        ("pandas.core.computation.eval", "eval"), ("pandas.io.common", "get_handle"), ("pandas", "ExcelFile"),
        ("sklearn.datasets", "load_files"), ("sklearn.datasets._openml", "fetch_openml"), ("sklearn.base", "importlib"),
        ("sklearn.utils._show_versions", "sys"), ("sklearn.utils._testing", "TempMemmap"), ("sklearn.utils.parallel", "Parallel"),
        ("sklearn.utils.discovery", "import_module"), ("sklearn.conftest", "environ"), ("sklearn", "clone"), ("sklearn.utils", "Bunch"),
        ("sklearn.externals.joblib", "load"), ("sklearn.utils.metaestimators", "attrgetter"), ("sklearn.tree._export", "export_text"),
        ("xgboost.core", "_load_lib"), ("xgboost.spark.core", "pickle"), ("lightgbm.basic", "Dataset"), ("catboost.core", "Pool"),
        ("torch", "load"), ("torch.hub", "load"), ("skops.io", "load"), ("predis.client", "Client"), ("__main__", "run"),
    )  # fmt: skip

    @pytest.mark.parametrize(("module", "name"), CALLS, ids=lambda value: value)
    def test_calls(self, module: str, name: str) -> None:
        with pytest.raises(Untrusted, match=rf"must not: {module}\.{name};"):
            unpickling.load(named(module, name, "x"))

    @pytest.mark.parametrize(
        ("module", "name"),
        [
            ("sklearn.base", "importlib.import_module"), ("sklearn.utils._show_versions", "sys.modules"), ("numpy", "ndarray.tofile"),
            ("builtins", "str.format"), ("sklearn.linear_model._logistic", "LogisticRegression.__init__"), ("os", "system.__call__"),
            ("collections", "OrderedDict.fromkeys"), ("sklearn.base", "BaseEstimator.__setstate__.__globals__"),
            ("builtins", ""), ("", "eval"), ("sklearn.", "x"), ("sklearn..base", "x"), (".sklearn", "x"), ("sklearn.base\n", "os"),
            ("numpyx", "ndarray"), ("sklearn_evil", "Thing"), ("ｏｓ", "system"),
        ],
    )  # fmt: skip
    def test_ways_around(self, module: str, name: str) -> None:
        """Dotted names, which the newer protocols follow from attribute to attribute, and names that only look admitted."""
        with pytest.raises(Untrusted):
            unpickling.load(named(module, name, "x"))

    @pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
    @pytest.mark.parametrize(
        "within",
        [
            lambda call: call,
            lambda call: [LogisticRegression(C=call)],
            lambda call: np.array([call, 1], np.object_),
        ],
    )
    def test_nothing_of_it_runs(self, protocol: int, within: Callable[[Any], Any], tmp_path: Path) -> None:
        canary = tmp_path / "ran"
        exploit = within(Calls(os.system, f"touch {canary}"))
        for content in (pickle.dumps(exploit, protocol), joblib_bytes(exploit), joblib_bytes(exploit, 3)):
            with pytest.raises(Untrusted, match=r"posix\.system|nt\.system"):
                unpickling.load(content)
        assert not canary.exists()
        pickle.loads(pickle.dumps(exploit, protocol))  # it would have
        assert canary.exists()

    @pytest.mark.parametrize(
        "call",
        [
            Calls(exec, "raise SystemExit"), Calls(eval, "1"), Calls(getattr, "x", "upper"), Calls(subprocess.check_output, ["true"]),
            Calls(operator.attrgetter("__class__.__base__"), 1), Calls(operator.methodcaller("upper"), "x"), Calls(__import__, "os"),
        ],
        ids=lambda call: repr(call._call[0]),
    )  # fmt: skip
    def test_chains(self, call: Calls) -> None:
        for content in (pickle.dumps(call), joblib_bytes([np.zeros(3), call])):
            with pytest.raises(Untrusted):
                unpickling.load(content)

    def test_everything_refused_is_named_at_once(self) -> None:
        content = pickle.dumps(
            [Calls(os.system, "true"), LogisticRegression(), Calls(eval, "1"), Calls(os.getcwd)]
        )
        with pytest.raises(Untrusted, match=r"builtins\.eval, posix\.getcwd, posix\.system;"):
            unpickling.load(content)

    def test_also_in_a_file_that_then_breaks(self) -> None:
        for content in (
            pickle.dumps([Calls(os.system, "true"), "more"])[:-3],
            pickle.dumps(Calls(os.system, "true"))[:-1] + b"\xff",
        ):
            with pytest.raises(Untrusted, match="system"):
                unpickling.load(content)

    def test_an_imported_class_is_not_changed(self) -> None:
        """State given to a class would change it for every model of the process: here what LogisticRegression answers."""
        changed = (
            b"\x80\x04"
            b"csklearn.linear_model._logistic\nLogisticRegression\n"
            b"N}\x8c\x07predict"
            b"cbuiltins\nlist\n"
            b"s\x86b."
        )
        for content in (
            changed,
            changed.replace(b"csklearn.linear_model._logistic\nLogisticRegression\n", b"cnumpy\nndarray\n"),
        ):
            with pytest.raises(Untrusted, match=r"changes .* which is not its own"):
                unpickling.load(content)
        assert LogisticRegression.predict is not list

    def test_extension_codes(self) -> None:
        copyreg.add_extension("posix", "system", 231)
        try:
            content = pickle.dumps(os.system, 2)
            assert pickle.EXT1 in content
            with pytest.raises(Untrusted, match="extension code 231"):
                unpickling.load(content)
        finally:
            copyreg.remove_extension("posix", "system", 231)

    def test_names_by_way_of_the_memo(self) -> None:
        content = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93\x8c\x04true\x85R."
        with pytest.raises(Untrusted, match=r"posix\.system"):
            unpickling.load(content)

    def test_the_old_opcodes(self) -> None:
        for content in (
            b"(S'true'\niposix\nsystem\n.",
            b"(cposix\nsystem\nS'true'\no.",
            b"cposix\nsystem\n(S'true'\ntR.",
        ):
            with pytest.raises(Untrusted, match=r"posix\.system"):
                unpickling.load(content)


class TestBroken:
    @pytest.mark.parametrize(
        "content",
        [
            b"", b".", b"x", b"\x80", b"\x80\x04", b"\x80\x63N.", b"\x80\x04P0\n.", b"\x80\x04K\x01Q.", b"\x80\x05\x97.", gzip.compress(b"x"),
            gzip.compress(b"x" * 50)[:-5], bz2.compress(b"x" * 50)[:20], lzma.compress(b"x" * 50)[:30], zlib.compress(b"x" * 99)[:8],
            b"\x04\x22\x4d\x18", b"ZF0x", b"\x80\x04cbuiltins\nlist\nK\x01K\x02\x86R.", b"(" * 100_000,
        ],
    )  # fmt: skip
    def test_no_pickle(self, content: bytes) -> None:
        with pytest.raises(ModelFailure):
            unpickling.load(content)

    def test_arrays_longer_than_the_file(self) -> None:
        whole = joblib_bytes([np.arange(50.0), "end"])
        for cut in range(1, len(whole), 7):
            with pytest.raises(ModelFailure):
                unpickling.load(whole[:cut])

    def test_an_array_of_negative_length_does_not_read_in_circles(self) -> None:
        content = joblib_bytes(np.arange(5.0))
        shape = content.index(b"K\x05\x85")
        with pytest.raises(ModelFailure, match="an array of the shape"):
            unpickling.load(content[:shape] + b"J\xf0\xff\xff\xff\x85" + content[shape + 3 :])

    @given(st.binary(max_size=60), st.integers(0, 10_000), st.integers(0, 255))
    def test_any_bytes_are_read_or_refused(self, noise: bytes, place: int, value: int) -> None:
        damaged = bytearray(WHOLE)
        damaged[place % len(damaged)] = value
        for content in (noise, b"\x80\x04" + noise, bytes(damaged)):
            with contextlib.suppress(PredisError):
                unpickling.load(content)


WHOLE = joblib_bytes({"a": np.arange(4.0), "b": ["x", None, 1.5], "c": {1: (2, 3)}})


@pytest.mark.parametrize(
    "module", ["antigravity", "pandas.io.pytables", "numpy.f2py.__main__", "sklearn.datasets._openml"]
)
def test_what_is_refused_is_not_imported(module: str, tmp_path: Path) -> None:
    """Importing runs a module's code."""
    program = (
        "import sys; from predis.serving import unpickling; from predis.errors import Untrusted\n"
        "try: unpickling.load(open(sys.argv[1], 'rb').read())\n"
        "except Untrusted: print([m for m in ('antigravity', 'sklearn', 'pandas', 'numpy.f2py') if m in sys.modules])"
    )
    path = tmp_path / "model.pkl"
    path.write_bytes(named(module, "x", "y"))
    found = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
