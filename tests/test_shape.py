"""The ratchet of the code's shape. A limit here is only ever tightened.

A function is as long as the lines from its ``def`` to its last, docstring included, decorators not. Migrations are records
of what was, not code that is read: they are left out.
"""

from __future__ import annotations

import ast
import importlib
import math
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import predis

LONGEST_FUNCTION = 80
P90_OF_FUNCTIONS = 30
MOST_PARAMETERS = 6
MOST_POSITIONAL = 2

PACKAGE = Path(predis.__file__).parent
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.parent.name != "versions")

# What a framework calls gets its parameters from the framework. A command has one per option; the parameters of the others
# are counted, but may be positional: their order is the caller's.
COMMANDS = {"command", "group"}
ROUTES = {"get", "post", "put", "patch", "delete"}
CALLED_BY_POSITION = {"listens_for", "exception_handler"} | ROUTES
SIGNATURES = {
    ("scope", "receive", "send"),  # ASGI
    ("exc_type", "exc", "traceback"),  # __exit__ and __aexit__
}

# The files outside state/ and store.py that may know SQLAlchemy, each with its reason.
SQL_ELSEWHERE: dict[str, str] = {"cache/sources/sql.py": "it asks databases of users, with their statements"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): ast.parse(file.read_text("utf-8")) for file in FILES}


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def length(function: Function) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def percentile_90(lengths: Iterable[int]) -> int:
    """The smallest length that at least nine tenths of the functions do not exceed."""
    ordered = sorted(lengths)
    return ordered[math.ceil(0.9 * len(ordered)) - 1] if ordered else 0


def decorators(function: Function) -> set[str]:
    """Last names of the decorators: ``command`` of ``@main.command("up")``."""
    found = set()
    for node in function.decorator_list:
        called = node.func if isinstance(node, ast.Call) else node
        found.add(called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", ""))
    return found


def parameter_faults(function: Function) -> list[str]:
    if decorators(function) & COMMANDS:
        return []
    given = function.args
    positional = [a.arg for a in (*given.posonlyargs, *given.args) if a.arg not in ("self", "cls")]
    collecting = [a for a in (given.vararg, given.kwarg) if a is not None]
    count = len(positional) + len(given.kwonlyargs) + len(collecting)
    faults = []
    if count > MOST_PARAMETERS:
        faults.append(f"{function.name} has {count} parameters")
    by_position = decorators(function) & CALLED_BY_POSITION or tuple(positional) in SIGNATURES
    if len(positional) > MOST_POSITIONAL and not by_position:
        faults.append(f"{function.name} has {len(positional)} parameters that are not keyword-only")
    return faults


def imports(tree: ast.AST, *, inside_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that really run: not those under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports(ast.Module([other], []), inside_functions=inside_functions)
        elif inside_functions or not isinstance(node, Function):
            yield from imports(node, inside_functions=inside_functions)


def import_graph(modules: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Which module needs which other, among ``modules``. A package's own names are not an import of the package."""
    graph: dict[str, set[str]] = {}
    for name, tree in modules.items():
        needed = graph[name] = set()
        for node in imports(tree, inside_functions=False):
            if isinstance(node, ast.Import):
                needed |= {alias.name for alias in node.names}
                continue
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                needed.add(inner if inner in modules else str(node.module))
        needed &= modules.keys() - {name}
    return graph


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one cycle in order, or nothing."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for following in sorted(graph[name]):
            if found := walk(following, [*path, name]):
                return found
        done.add(name)
        return []

    for start in sorted(graph):
        if found := walk(start, []):
            return found
    return []


def imports_of(tree: ast.AST, package: str) -> bool:
    """Whether a module imports a package at all, be it inside a function. To name its types is no import."""
    names: list[str] = []
    for node in imports(tree, inside_functions=True):
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else [str(node.module)]
    return any(name == package or name.startswith(package + ".") for name in names)


def may_speak_sql(file: str) -> bool:
    return Path(file).name == "store.py" or file.startswith("state/") or file in SQL_ELSEWHERE


def test_no_function_is_too_long() -> None:
    long = [
        f"{module}.{f.name}: {length(f)} lines"
        for module, tree in MODULES.items()
        for f in functions(tree)
        if length(f) > LONGEST_FUNCTION
    ]
    assert not long


def test_functions_are_short_as_a_rule() -> None:
    lengths = [length(f) for tree in MODULES.values() for f in functions(tree)]
    assert percentile_90(lengths) <= P90_OF_FUNCTIONS


def test_functions_take_few_parameters() -> None:
    faults = [
        f"{module}:{f.lineno}: {fault}"
        for module, tree in MODULES.items()
        for f in functions(tree)
        for fault in parameter_faults(f)
    ]
    assert not faults, "\n".join(faults)


def test_no_import_cycles() -> None:
    assert cycle(import_graph(MODULES)) == []


def test_sql_stands_in_stores_only() -> None:
    files = {str(file.relative_to(PACKAGE)): MODULES[module_name(file)] for file in FILES}
    assert [f for f, tree in files.items() if imports_of(tree, "sqlalchemy") and not may_speak_sql(f)] == []
    unused = [f for f in SQL_ELSEWHERE if f not in files or not imports_of(files[f], "sqlalchemy")]
    assert unused == [], "take these out of SQL_ELSEWHERE"


def test_every_module_says_what_it_is() -> None:
    # An __init__.py with nothing in it only makes a folder a package.
    silent = [name for name, tree in MODULES.items() if tree.body and ast.get_docstring(tree) is None]
    assert silent == []


@pytest.mark.parametrize(
    "name", [name for name, tree in MODULES.items() if "__all__" in ast.unparse(tree).split()]
)
def test_public_names_can_be_imported(name: str) -> None:
    module = importlib.import_module(name)
    assert [public for public in module.__all__ if not hasattr(module, public)] == []


class TestTheRatchetItself:
    """A checker that cannot fail checks nothing."""

    BAD = textwrap.dedent(
        '''
        import predis.b
        from predis.c import thing

        if TYPE_CHECKING:
            import predis.d

        def many(a, b, /, c, *, d, e, f, **g):
            """One.

            Two.
            """
            import sqlalchemy.orm

        class Thing:
            def fine(self, a, b, *, c, d, e, f): ...
            async def __call__(self, scope, receive, send): ...
            @main.command()
            def command(self, a, b, c, d, e, f, g): ...
            @event.listens_for(engine, "checkout")
            def listener(a, b, c): ...
            @classmethod
            def three(cls, a, b, c=None): ...
        '''
    )
    TREE = ast.parse(BAD)

    def named(self, name: str) -> Function:
        return next(f for f in functions(self.TREE) if f.name == name)

    def test_lengths(self) -> None:
        assert length(self.named("many")) == 6
        assert length(self.named("listener")) == 1
        assert percentile_90([1] * 9 + [500]) == 1
        assert percentile_90([1] * 8 + [500, 500]) == 500
        assert percentile_90([]) == 0

    def test_parameters(self) -> None:
        assert parameter_faults(self.named("many")) == [
            "many has 7 parameters",
            "many has 3 parameters that are not keyword-only",
        ]
        assert parameter_faults(self.named("three")) == ["three has 3 parameters that are not keyword-only"]
        for name in ("fine", "__call__", "command", "listener"):
            assert parameter_faults(self.named(name)) == [], name

    def test_imports(self) -> None:
        empty = ast.parse("")
        modules = {"predis.a": self.TREE, "predis.b": empty, "predis.c": empty, "predis.d": empty}
        assert import_graph(modules)["predis.a"] == {"predis.b", "predis.c"}
        assert imports_of(self.TREE, "sqlalchemy")
        assert not imports_of(self.TREE, "sql")

    def test_cycles(self) -> None:
        looped = {"predis.a": ast.parse("from predis import b"), "predis.b": ast.parse("import predis.a")}
        assert cycle(import_graph(looped)) == ["predis.a", "predis.b", "predis.a"]
        assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []

    @pytest.mark.parametrize(
        ("file", "allowed"),
        [
            ("registry/store.py", True),
            ("state/engine.py", True),
            ("rollout/plan.py", False),
            ("app.py", False),
        ],
    )
    def test_sql(self, file: str, allowed: bool) -> None:
        assert may_speak_sql(file) is allowed
