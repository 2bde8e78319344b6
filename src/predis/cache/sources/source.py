"""A source as it is declared: the one table of what may be said of it, with checks.

Each field of ``Source`` is a row: name, type, default, limits and help stand together. ``[cache.sources.NAME]`` in ``predis.toml``, the
API's documents and ``predis cache source add`` are all read off it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

from predis.access import DEFAULT_TENANT
from predis.cache.sources.pattern import Pattern
from predis.errors import InvalidInput
from predis.telemetry import redact

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_CHANGES = re.compile(
    r"\s*(?:INSERT|UPDATE|DELETE|REPLACE|MERGE|TRUNCATE|DROP|ALTER|CREATE)\b", re.IGNORECASE
)
BOUND = re.compile(r"(?<![:\w\\]):([A-Za-z_]\w*)(?![:\w])")
"""A ``:bound`` parameter of a statement; not a cast as in ``id::text``."""
_LISTED = re.compile(
    r"(?:\bIN|=\s*ANY)\s*(?P<bracket>\()?\s*:(?P<name>[A-Za-z_]\w*)(?(bracket)\s*\))", re.IGNORECASE
)
_EXAMPLE = "SELECT id, name FROM users WHERE id IN :id"
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _row(default: Any, text: str, *, of: str = "", **limits: Any) -> Any:
    """A row of the table. ``of``: the kinds it is about, empty for all. Limits are ``low``, ``high``, ``choices``."""
    metadata = {"help": text, "of": of.split(), "default": default, **limits}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where keys of a pattern are loaded from, how their values are kept, and what protects both sides. See ``of``."""

    # fmt: off
    name: str
    tenant: str = DEFAULT_TENANT
    pattern: str = _row("", "Keys it is for: user:{id}, cart:{user:int}:{day}. A placeholder may be {name}, {name:int} or {name:path}.")
    kind: str = _row("", "Where values come from.", choices=("sql", "http", "python"))

    url: str = _row("", "SQLAlchemy URL of the database; or URL of the answer, with {placeholders}.", of="sql http")
    url_env: str = _row("", "Environment variable that holds the URL instead.", of="sql http")
    statement: str = _row("", "SELECT with :placeholders. With IN :placeholder many keys are one query.", of="sql")
    rows: str = _row("one", "one: a key is one row; many: a key is a list of rows.", of="sql", choices=("one", "many"))
    headers: Mapping[str, str] = _row({}, "Headers of a request: NAME=VALUE, several with commas; in a file a table.", of="http")
    headers_env: Mapping[str, str] = _row({}, "The same with environment variables for values: NAME=VARIABLE.", of="http")
    path: str = _row("", "Where in the answer's JSON the value is, of batch_url's the values: data.user. Empty: all of it.", of="http")
    batch_url: str = _row(
        "", "URL that answers for many keys at once: {placeholder} is their list, joined by commas. The answer is an object "
        "by placeholder, or a list of objects that have it as a field.", of="http",
    )
    function: str = _row("", "module:function, called with a list of objects of placeholders; gives the list of values.", of="python")

    encoding: str = _row(
        "json", "How a value is kept: json, text (one column or text), or hash (fields of a hash: HGET, HMGET, HGETALL).",
        choices=("json", "text", "hash"),
    )
    ttl_s: float = _row(300.0, "How long a value is fresh.", low=0.001, high=10 * 365 * 86_400)
    jitter: float = _row(0.1, "Share by which ttl_s differs at random, so that values do not expire together.", low=0, high=1)
    negative_ttl_s: float = _row(5.0, "How long it is remembered that the source has no value; 0: not at all.", low=0, high=86_400)
    stale_s: float = _row(0.0, "How long after ttl_s a value is still answered while it is loaded anew.", low=0, high=10 * 365 * 86_400)
    early: float = _row(0.0, "Early refresh: beta of XFetch, 1 as in the paper; 0: none.", low=0, high=100)

    writes: Literal["none", "through", "behind"] = _row(
        "none", "Whether writes of its keys go to the source: before they are acknowledged (through), or from a queue (behind).",
        choices=("none", "through", "behind"),
    )
    upsert: str = _row("", "Statement, or module:function, for a value; :value and its fields are bound too.", of="sql python")
    delete: str = _row("", "Statement, or module:function, for a deleted key.", of="sql python")

    timeout_s: float = _row(2.0, "Longest that a load or a write may take.", low=0.01, high=600)
    concurrency: int = _row(8, "Calls of the source that one gateway worker makes at once.", low=1, high=256)
    waiting: int = _row(1_000, "Keys that may wait for their turn in one worker; more fail at once.", low=1, high=1_000_000)
    batch: int = _row(100, "Most keys in one call.", low=1, high=10_000)
    linger_ms: float = _row(0.0, "How long a call waits for more keys.", low=0, high=1_000)
    breaker_failures: int = _row(5, "Failures in a row after which the source is left alone.", low=1, high=1_000)
    breaker_s: float = _row(5.0, "For how long it is, before one call tries it.", low=0.01, high=3_600)
    max_value_bytes: int = _row(16 << 20, "Largest value, and of http the largest answer.", low=1, high=512 << 20)
    # fmt: on

    def __hash__(self) -> int:
        return hash((self.tenant, self.name))

    @cached_property
    def matched(self) -> Pattern:
        return Pattern(self.pattern, tenant=self.tenant)

    @property
    def stores(self) -> Literal["string", "hash"]:
        return "hash" if self.encoding == "hash" else "string"

    @property
    def listed(self) -> str:
        """The placeholder for which one call takes many values; empty where a call is for one key."""
        if self.kind == "sql":
            found = _LISTED.search(self.statement)
            return found["name"] if found else ""
        names = re.findall(r"\{(\w+)\}", self.batch_url)
        return str(names[0]) if names else ""

    @property
    def batched(self) -> bool:
        return self.kind == "python" or bool(self.listed)

    @classmethod
    def of(cls, name: str, document: Mapping[str, Any], *, tenant: str = DEFAULT_TENANT) -> Source:
        """A source from its document: the fields of this class but ``name`` and ``tenant``.

        Raises:
            InvalidInput: an unknown field, a value of the wrong type or out of range, or fields that do not fit each other.
        """
        where = f"source {name!r}"
        if not NAME.fullmatch(name):
            raise InvalidInput(
                f"{where}: a name is 1 to 64 of a-z, 0-9, - and _, and begins with a letter or digit"
            )
        rows = {f.name: f for f in fields(cls) if f.metadata}
        unknown = sorted(set(document) - set(rows))
        if unknown:
            raise InvalidInput(f"{where}: there is no {unknown[0]!r}; a source has {', '.join(rows)}")
        given = {key: _checked(value, rows[key], where=f"{where}: {key}") for key, value in document.items()}
        source = cls(name=name, tenant=tenant, **given)
        for check in (_check_pattern, _check_kind, _check_statements, _check_writes):
            check(source, where)
        for key in document:
            kinds = rows[key].metadata["of"]
            if kinds and source.kind not in kinds:
                raise InvalidInput(f"{where}: {key} is for the kind {' or '.join(kinds)}, not {source.kind}")
        return source

    def to_dict(self) -> dict[str, Any]:
        """The document: what differs from the defaults."""
        rows = [f for f in fields(self) if f.metadata]
        return {
            f.name: _plain(getattr(self, f.name))
            for f in rows
            if getattr(self, f.name) != f.metadata["default"]
        }

    def shown(self) -> dict[str, Any]:
        """Everything, for people: passwords cut out."""
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        hidden = dict.fromkeys(self.headers, "***")
        return {**values, "url": redact(self.url), "batch_url": redact(self.batch_url), "headers": hidden}


def described() -> list[tuple[str, str, str]]:
    """Name, default and help of each field, for people."""
    return [(f.name, str(f.metadata["default"]), f.metadata["help"]) for f in fields(Source) if f.metadata]


def typed(key: str, text: str) -> Any:
    """A field's value from a command line.

    Raises:
        InvalidInput: there is no such field, or the text is no number where one is needed.
    """
    default = {f.name: f.metadata["default"] for f in fields(Source) if f.metadata}.get(key)
    if default is None:
        raise InvalidInput(f"a source has no {key!r}; it has {', '.join(name for name, _, _ in described())}")
    try:
        if isinstance(default, int | float):
            return type(default)(text)
    except ValueError:
        raise InvalidInput(f"{key} must be a number, got {text!r}") from None
    if isinstance(default, Mapping):
        pairs = [pair.partition("=") for pair in text.split(",")]
        if not all(equals and name.strip() for name, equals, _ in pairs):
            raise InvalidInput(f"{key} is NAME=VALUE, several with commas between them, got {text!r}")
        return {name.strip(): value for name, _, value in pairs}
    return text


def _checked(value: Any, row: Any, *, where: str) -> Any:
    wanted = type(row.metadata["default"])
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if wanted is dict:
        if not isinstance(value, Mapping) or not all(
            isinstance(text, str) for text in (*value, *value.values())
        ):
            raise InvalidInput(f"{where} must be texts by name")
        return dict(value)
    if type(value) is not wanted:
        raise InvalidInput(f"{where} must be of type {wanted.__name__}, got {value!r}")
    choices, low, high = (row.metadata.get(limit) for limit in ("choices", "low", "high"))
    if choices and value not in choices:
        raise InvalidInput(f"{where} must be one of {', '.join(choices)}, got {value!r}")
    # Written so that NaN, which compares with nothing, is out of range.
    if low is not None and not low <= value <= high:
        raise InvalidInput(f"{where} must be between {low} and {high}, got {value}")
    return value


def _check_pattern(source: Source, where: str) -> None:
    if len(source.pattern) > 512:
        raise InvalidInput(f"{where}: a pattern has at most 512 characters")
    try:
        names = source.matched.names
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from None
    if "value" in names:
        raise InvalidInput(
            f"{where}: the placeholder 'value' is the name of what is written; call it otherwise"
        )


def _check_kind(source: Source, where: str) -> None:
    if not source.kind:
        raise InvalidInput(f"{where}: kind is missing: sql, http or python")
    if source.kind == "python":
        if not _FUNCTION.fullmatch(source.function):
            raise InvalidInput(f"{where}: function must be like module:function, got {source.function!r}")
        return
    if bool(source.url) == bool(source.url_env):
        raise InvalidInput(f"{where}: either url or url_env must say where the {source.kind} source is")
    if source.kind == "http":
        _check_templates(source, where)


def check_template(source: Source, template: str, *, where: str) -> None:
    """
    Raises:
        InvalidInput: it is no URL of one host, or has a placeholder that the source's pattern has not.
    """
    try:
        parts = urlsplit(template)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # no port, or no address in brackets
        usable = False
    if (
        not usable
        or "{" in parts.netloc
        or not template.isascii()
        or not template.isprintable()
        or " " in template
    ):
        raise InvalidInput(f"{where}: {redact(template)!r} is not like https://HOST/users/{{id}}")
    unknown = set(re.findall(r"\{(.*?)\}", template)) - set(source.matched.names)
    if unknown:
        raise InvalidInput(
            f"{where}: the pattern has no placeholder {min(unknown)!r}, which {redact(template)!r} uses"
        )


def _check_templates(source: Source, where: str) -> None:
    for template in filter(None, (source.url, source.batch_url)):
        check_template(source, template, where=where)
    if source.batch_url and source.matched.names != (source.listed,):
        raise InvalidInput(f"{where}: batch_url is for patterns with one placeholder, which it has to use")


def _check_statements(source: Source, where: str) -> None:
    if source.kind != "sql":
        return
    if not source.statement:
        raise InvalidInput(f"{where}: statement is missing, such as {_EXAMPLE}")
    if _CHANGES.match(source.statement):  # every read would do it
        raise InvalidInput(
            f"{where}: statement reads, as a SELECT does; what a write does is said by upsert and delete"
        )
    unknown = set(BOUND.findall(source.statement)) - set(source.matched.names)
    if unknown:
        raise InvalidInput(
            f"{where}: the statement binds :{min(unknown)}, which is no placeholder of {source.pattern!r}"
        )
    if len(_LISTED.findall(source.statement)) > 1:
        raise InvalidInput(f"{where}: only one placeholder of the statement may be a list (IN or ANY)")


def _check_writes(source: Source, where: str) -> None:
    if source.writes == "none":
        return
    if source.kind == "http":
        raise InvalidInput(f"{where}: a source of the kind http is not written to; writes must be none")
    if not source.upsert and not source.delete:
        raise InvalidInput(f"{where}: writes = {source.writes!r} needs upsert, delete or both")
    if source.kind == "python":
        for said in filter(None, (source.upsert, source.delete)):
            if not _FUNCTION.fullmatch(said):
                raise InvalidInput(f"{where}: upsert and delete must be like module:function, got {said!r}")


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def listed_as_in(statement: str) -> str:
    """The statement with its list, if it has one, written as SQLAlchemy expands it: ``IN :name``."""
    return _LISTED.sub(r"IN :\g<name>", statement)
