"""What a serialised estimator may name: the classes and few functions that rebuild it, and nothing that acts.

A pickle is a program: it names things to import and calls them. Here is the complete list of what it may name. Classes are admitted by
rule (an estimator of scikit-learn is one wherever its module moves to), functions only one by one: those that allocate an object and
fill it. Not admitted are whole packages: between them numpy, scipy, pandas and scikit-learn hold ``eval`` in half a dozen disguises.
Whether a name is admitted is decided before its module is imported wherever that can be told; what a name turns out to be is checked
after, so that a class that was merely imported into an admitted module is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from predis.errors import Untrusted

_NAMES = {
    "builtins": "bool int float complex str bytes bytearray list tuple dict set frozenset slice range object",
    "collections": "OrderedDict defaultdict deque Counter",
    "copyreg": "_reconstructor",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "numpy": "ndarray dtype mean median",
    "numpy.ma": "MaskedArray",
    "numpy.ma.core": "MaskedArray _mareconstruct",
    "numpy.random._pickle": "__randomstate_ctor __generator_ctor __bit_generator_ctor",
    "numpy.random._generator": "Generator",
    "numpy.random.mtrand": "RandomState",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64 PCG64DXSM",
    "numpy.random._philox": "Philox",
    "numpy.random._sfc64": "SFC64",
    "numpy.random.bit_generator": "SeedSequence __pyx_unpickle_SeedSequence",
    "scipy.interpolate._bsplines": "BSpline",
    "scipy.interpolate._interpolate": "interp1d PPoly",
    "scipy.spatial._ckdtree": "cKDTree",
    "scipy.spatial._kdtree": "KDTree",
    "pandas": "DataFrame Series Index RangeIndex Categorical CategoricalDtype Timestamp Timedelta StringDtype",
    "pandas.core.frame": "DataFrame",
    "pandas.core.series": "Series",
    "pandas.core.indexes.base": "Index _new_Index",
    "pandas.core.indexes.range": "RangeIndex",
    "pandas.core.internals.managers": "BlockManager SingleBlockManager",
    "pandas._libs.internals": "_unpickle_block",
    "pandas._libs.arrays": "__pyx_unpickle_NDArrayBacked",
    "pandas.core.arrays.categorical": "Categorical",
    "pandas.core.arrays.string_": "StringArray",
    "pandas.core.arrays.string_arrow": "ArrowStringArray",
    "pandas.core.dtypes.dtypes": "CategoricalDtype",
    "scipy._lib.array_api_compat.numpy._aliases": "asarray",
    "sklearn.cluster._kmeans": "_kmeans_single_lloyd _kmeans_single_elkan",
    "sklearn.feature_selection._mutual_info": "mutual_info_classif mutual_info_regression",
    "sklearn.feature_selection._univariate_selection": "chi2 f_classif f_oneway f_regression r_regression",
    "sklearn.neighbors._kd_tree": "newObj",
    "sklearn.neighbors._ball_tree": "newObj",
    "sklearn.metrics._dist_metrics": "newObj",
    "xgboost.core": "Booster",
    "lightgbm.basic": "Booster",
    "catboost.core": "CatBoost CatBoostClassifier CatBoostRegressor CatBoostRanker",
}  # fmt: skip
_FUNCTIONS = {(module, name) for module, names in _NAMES.items() for name in names.split()}
# numpy 2 renamed numpy.core; files of either must load under either.
_FUNCTIONS |= {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
}


@dataclass(frozen=True)
class _Rule:
    """Classes, or ufuncs, that are admitted without being listed: by where they are defined and by what they are."""

    module: Callable[[str], bool]
    thing: Callable[[Any], bool]


def _under(*prefixes: str) -> Callable[[str], bool]:
    return lambda module: module.startswith(prefixes)


# scikit-learn without its corners that fetch, run in parallel, test, or carry other people's code.
_ACTING = {
    "datasets",
    "externals",
    "tests",
    "conftest",
    "experimental",
    "fixes",
    "parallel",
    "_testing",
    "_mocking",
    "callback",
}
# What estimators are made of inside.
_PARTS = (
    "sklearn._loss.", "sklearn.ensemble._hist_gradient_boosting.", "sklearn.gaussian_process.kernels", "sklearn.linear_model._sgd_fast",
    "sklearn.metrics._dist_metrics", "sklearn.metrics._scorer", "sklearn.model_selection._split", "sklearn.neighbors._",
    "sklearn.tree._tree",
    "sklearn.neural_network._stochastic_optimizers", "sklearn.utils._bunch", "sklearn.utils._metadata_requests", "sklearn.utils._tags",
    "sklearn.calibration", "sklearn.compose._column_transformer", "sklearn.cluster._bisect_k_means", "sklearn.cluster._birch",
)  # fmt: skip
_UFUNCS = (
    "numpy",
    "numpy._core._multiarray_umath",
    "numpy.core._multiarray_umath",
    "scipy.special",
    "scipy.special._ufuncs",
    "scipy.special._special_ufuncs",
)
_SCALARS = (np.generic, np.dtype)


def _of_sklearn(module: str) -> bool:
    return module.startswith("sklearn.") and not _ACTING & set(module.split("."))


def _estimator(thing: Any) -> bool:
    from sklearn.base import BaseEstimator

    return isinstance(thing, type) and issubclass(thing, BaseEstimator)


_RULES = (
    _Rule(_of_sklearn, _estimator),
    _Rule(_under(*_PARTS), lambda thing: isinstance(thing, type)),
    _Rule(("xgboost.sklearn", "lightgbm.sklearn").__contains__, _estimator),
    _Rule(_under("scipy.sparse._"), lambda thing: isinstance(thing, type)),
    _Rule(_UFUNCS.__contains__, lambda thing: isinstance(thing, np.ufunc)),
    _Rule(
        ("numpy", "numpy.dtypes").__contains__,
        lambda thing: isinstance(thing, type) and issubclass(thing, _SCALARS),
    ),
)


def resolve(module: str, name: str) -> Any:
    """The class or function that a file may name.

    Raises:
        Untrusted: it is none of those admitted, or not there.
    """
    found = _admitted(module, name)
    if found is None:
        raise Untrusted(refusal([(module, name)]))
    return found


def refused(names: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the names that are not admitted, in order."""
    return sorted({(module, name) for module, name in names if _admitted(module, name) is None})


def refusal(names: Iterable[tuple[str, str]]) -> str:
    shown = ", ".join(f"{module}.{name}"[:120] for module, name in names)
    return (
        f"the file names what a model's file must not: {shown}; only estimators of scikit-learn, XGBoost, LightGBM and CatBoost and their "
        "data may be named. Code of your own needs the format 'python'"
    )


def _admitted(module: str, name: str) -> Any:
    if "." in name or not name.isidentifier():
        return None
    if (module, name) in _FUNCTIONS:
        return _imported(module, name)
    if not module.isascii() or not all(part.isidentifier() for part in module.split(".")):
        return None
    rules = [rule for rule in _RULES if rule.module(module)]
    if not rules:
        return None
    if module.startswith("sklearn.") and name.startswith("__pyx_unpickle_") and _of_sklearn(module):
        return _imported(module, name)  # Cython's own: makes an object of one class and fills its dictionary
    thing = _imported(module, name)
    if thing is None or not (isinstance(thing, np.ufunc) or getattr(thing, "__module__", None) == module):
        return None
    return thing if any(rule.thing(thing) for rule in rules) else None


def _imported(module: str, name: str) -> Any:
    try:
        loaded = sys.modules.get(module) or import_module(module)
    except ImportError:
        return None
    return vars(loaded).get(name)  # not getattr: a module's own __getattr__ would import for whoever asks
