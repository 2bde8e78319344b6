"""Conditions and values that an operator writes: a small safe part of Python's expressions.

    header.x_country in ["DE", "AT"] and parameter.tier == "gold"
    0 if label == None else value * 1.5 - abs(label - score)

Here are: and, or, not; comparisons, chained ones too; ``in`` and ``not in`` with a list of literals or a text; + - * / // %; if-else;
numbers, texts, True, False, None; the functions abs, min, max, len, lower, upper, startswith, endswith; and dotted names. What is no
identifier is named in brackets: ``input["dep time"]``.

An expression is checked and turned into closures once; what it then meets cannot make it fail. A name with no value is None; arithmetic
that makes no sense (with None, with texts, by zero) gives None; a comparison that makes none is False. Nothing in it grows: there are no
loops, no powers, no operations that lengthen texts, and of a text only its first 4,096 characters are looked at.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, NoReturn

from predis.errors import InvalidInput

MAX_CHARACTERS = 500
MAX_NODES = 100
_TEXT = 4_096  # characters of a text that are looked at

Get = Callable[[str], Any]
_Evaluate = Callable[[Any], Any]
_PLAIN = (int, float, bool, type(None))


@dataclass(frozen=True)
class Expression:
    """A checked expression. ``names`` are the dotted names that it reads.

    >>> tier = compile_expression("parameter.tier == 'gold' or key == None", names=["parameter.*", "key"])
    >>> sorted(tier.names)
    ['key', 'parameter.tier']
    >>> tier.holds({"parameter.tier": "tin", "key": "customer-7"}.get)
    False
    >>> compile_expression("value * 2 - 1", names=["value"])({"value": 3}.get)
    5
    """

    text: str
    names: frozenset[str]
    _evaluate: _Evaluate = field(repr=False, compare=False)

    def __call__(self, get: Any) -> Any:
        """The value: a number, a text, a truth value or None. ``get`` tells the value of a name, None where there is none."""
        return self._evaluate(get)

    def holds(self, get: Any) -> bool:
        """Whether the value counts as true: it is not None, False, zero or an empty text."""
        return bool(self._evaluate(get))


def _get(name: str) -> Callable[[Get], Any]:
    return lambda get: get(name)


def compile_expression(
    text: str, *, names: Collection[str], read: Callable[[str], _Evaluate] = _get
) -> Expression:
    """An expression that may read ``names``; ``header.*`` stands for every name below ``header``.

    Args:
        read: gives, for a name, the function that finds its value in what the expression will be called with, where that is not a
            function of names. It is quicker: the name is looked at once.

    Raises:
        InvalidInput: it is too long, cannot be read, or has something that is not allowed; the message says where.
    """
    text = " ".join(text.splitlines()).strip()
    if not text:
        raise InvalidInput("an expression must not be empty")
    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(
            f"an expression has at most {MAX_CHARACTERS} characters, {text[:40]!r}... has {len(text)}"
        )
    compiler = _Compiler(text, names, read=read)
    evaluate = compiler.of(compiler.parsed())
    return Expression(text, frozenset(compiler.read), evaluate)


class _Compiler:
    """Turns one expression's syntax tree into closures, and notes which names it reads."""

    def __init__(self, text: str, names: Collection[str], *, read: Callable[[str], _Evaluate]) -> None:
        self._text = text
        self._names = names
        self._read = read
        self.read: set[str] = set()
        self._makers: Mapping[type[ast.expr], Callable[[Any], _Evaluate]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.Attribute: self._name,
            ast.Subscript: self._name,
            ast.BoolOp: self._junction,
            ast.UnaryOp: self._unary,
            ast.BinOp: self._arithmetic,
            ast.Compare: self._comparison,
            ast.IfExp: self._choice,
            ast.Call: self._call,
        }

    def parsed(self) -> ast.expr:
        try:
            with warnings.catch_warnings():  # an odd escape in a text is no news to anybody
                warnings.simplefilter("ignore")
                tree = ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            where = f" at character {error.offset}" if error.offset else ""
            raise InvalidInput(f"{self._text!r} cannot be read: {error.msg}{where}") from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise InvalidInput(f"{self._text!r} cannot be read: {error}") from None
        nodes = sum(isinstance(node, ast.expr) for node in ast.walk(tree))
        if nodes > MAX_NODES:
            raise InvalidInput(
                f"an expression has at most {MAX_NODES} parts, {self._text[:40]!r}... has {nodes}"
            )
        return tree

    def of(self, node: ast.expr) -> _Evaluate:
        make = self._makers.get(type(node))
        if make is None:
            self._refuse(node, f"{ast.unparse(node)!r} is none of the things an expression is made of")
        return make(node)

    # -- leaves ----------------------------------------------------------------------------------------------------------

    def _constant(self, node: ast.Constant) -> _Evaluate:
        value = self._literal(node)
        return lambda _get: value

    def _literal(self, node: ast.expr) -> Any:
        """A number, text, truth value or None."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._literal(node.operand)
            if isinstance(value, int | float):
                return -value
        elif isinstance(node, ast.Constant) and type(node.value) in (*_PLAIN, str):
            return node.value
        self._refuse(node, f"{ast.unparse(node)!r} is no number, text, True, False or None")

    def _name(self, node: ast.expr) -> _Evaluate:
        name = self._dotted(node)
        if not any(_covers(allowed, name) for allowed in self._names):
            self._refuse(node, f"there is no {name!r}; the names are {', '.join(sorted(self._names))}")
        self.read.add(name)
        read = self._read(name)

        def value(get: Get) -> Any:
            found = read(get)
            return found if type(found) in _PLAIN else _plain(found)

        return value

    def _dotted(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute):
            return f"{self._dotted(node.value)}.{node.attr}"
        if isinstance(node, ast.Subscript):
            name = node.slice.value if isinstance(node.slice, ast.Constant) else None
            if isinstance(name, str):
                return f"{self._dotted(node.value)}.{name}"
        self._refuse(node, f"{ast.unparse(node)!r} is no name")

    # -- what is made of others ------------------------------------------------------------------------------------------

    def _junction(self, node: ast.BoolOp) -> _Evaluate:
        """As in Python: the value of the first part that decides."""
        parts = [self.of(value) for value in node.values]
        decides = isinstance(node.op, ast.Or)
        if len(parts) == 2:
            left, right = parts
            if decides:
                return lambda get: left(get) or right(get)
            return lambda get: left(get) and right(get)

        def value(get: Get) -> Any:
            found = None
            for part in parts:
                found = part(get)
                if bool(found) is decides:
                    break
            return found

        return value

    def _unary(self, node: ast.UnaryOp) -> _Evaluate:
        inner = self.of(node.operand)
        if isinstance(node.op, ast.Not):
            return lambda get: not inner(get)
        if isinstance(node.op, ast.USub):
            return lambda get: -value if isinstance(value := inner(get), int | float) else None
        self._refuse(node, f"{ast.unparse(node)!r} has a sign that is not taken; '-' and 'not' are")

    def _arithmetic(self, node: ast.BinOp) -> _Evaluate:
        apply = _ARITHMETIC.get(type(node.op))
        if apply is None:
            self._refuse(node, f"{ast.unparse(node)!r} has an operation that is not taken; + - * / // % are")
        left, right = self.of(node.left), self.of(node.right)

        def value(get: Get) -> Any:
            first, second = left(get), right(get)
            if not isinstance(first, int | float) or not isinstance(second, int | float):
                return None
            try:
                return apply(first, second)
            except ArithmeticError:
                return None

        return value

    def _comparison(self, node: ast.Compare) -> _Evaluate:
        first = self.of(node.left)
        pairs = []
        for op, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.List | ast.Tuple | ast.Set):
                held = frozenset(self._literal(each) for each in right.elts)
                pairs.append((_IN_LIST[type(op)], _always(held)))
            elif (apply := _COMPARISONS.get(type(op))) is not None:
                pairs.append((apply, self.of(right)))
            else:
                self._refuse(node, "'is' is not taken; compare with == or !=")
        if len(pairs) == 1:
            ((compare, second),) = pairs
            return lambda get: compare(first(get), second(get))

        def value(get: Get) -> bool:
            left = first(get)
            for compare, evaluate in pairs:
                right = evaluate(get)
                if not compare(left, right):
                    return False
                left = right
            return True

        return value

    def _choice(self, node: ast.IfExp) -> _Evaluate:
        test, then, otherwise = self.of(node.test), self.of(node.body), self.of(node.orelse)
        return lambda get: then(get) if test(get) else otherwise(get)

    def _call(self, node: ast.Call) -> _Evaluate:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        found = _FUNCTIONS.get(name)
        if found is None:
            known = ", ".join(_FUNCTIONS)
            self._refuse(node, f"{ast.unparse(node.func)!r} is no function; the functions are {known}")
        apply, least, most = found
        if node.keywords or not least <= len(node.args) <= most:
            takes = f"{least}" if least == most else f"at least {least}"
            self._refuse(node, f"{name} takes {takes} value{'s' * (most > 1)}")
        arguments = [self.of(each) for each in node.args]
        if len(arguments) == 1:
            (only,) = arguments
            return lambda get: apply(only(get))
        return lambda get: apply(*[argument(get) for argument in arguments])

    def _refuse(self, node: ast.expr, why: str) -> NoReturn:
        before = self._text.encode()[: node.col_offset].decode(errors="ignore")
        raise InvalidInput(f"{self._text!r}, at character {len(before) + 1}: {why}")


def _always(value: Any) -> _Evaluate:
    return lambda _get: value


def _covers(allowed: str, name: str) -> bool:
    """Whether an allowed name is this one, or stands for all those below a name that this one is below."""
    if allowed.endswith(".*"):
        return name.startswith(allowed[:-1]) and len(name) > len(allowed) - 1
    return name == allowed


def _plain(value: Any) -> Any:
    """A value as an expression takes it."""
    if type(value) is str and len(value) <= _TEXT:
        return value
    if isinstance(value, str):
        return value[:_TEXT]
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else None


def _ordered(apply: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Of two numbers or of two texts; False of anything else."""

    def compare(first: Any, second: Any) -> bool:
        numbers = isinstance(first, int | float) and isinstance(second, int | float)
        return (numbers or (isinstance(first, str) and isinstance(second, str))) and apply(first, second)

    return compare


def _contains(first: Any, second: Any) -> bool:
    """Whether a text is part of another."""
    return isinstance(first, str) and isinstance(second, str) and first in second


def _of_numbers(apply: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values: apply(*values) if all(isinstance(v, int | float) for v in values) else None


def _of_texts(apply: Callable[..., Any], otherwise: Any = None) -> Callable[..., Any]:
    return lambda *values: apply(*values) if all(isinstance(v, str) for v in values) else otherwise


_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.In: _contains,
    ast.NotIn: lambda first, second: not _contains(first, second),
}
_IN_LIST: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.In: lambda value, held: value in held,
    ast.NotIn: lambda value, held: value not in held,
}
# By name: what it does, and how many values it takes at least and at most.
_FUNCTIONS: Mapping[str, tuple[Callable[..., Any], int, int]] = {
    "abs": (_of_numbers(abs), 1, 1),
    "min": (_of_numbers(min), 2, MAX_NODES),
    "max": (_of_numbers(max), 2, MAX_NODES),
    "len": (_of_texts(len), 1, 1),
    "lower": (_of_texts(str.lower), 1, 1),
    "upper": (_of_texts(str.upper), 1, 1),
    "startswith": (_of_texts(str.startswith, otherwise=False), 2, 2),
    "endswith": (_of_texts(str.endswith, otherwise=False), 2, 2),
}
