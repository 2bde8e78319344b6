"""Promotion: the identical version, from the installation here to another, once it meets what that environment demands.

It is two clients' work, not a server's: neither installation needs a key of the other, and neither needs to reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from predis.client import Client
from predis.errors import IntegrityFailure, InvalidInput
from predis.expressions import Expression, compile_expression

# What an expression among the demands may speak of.
NAMES = ("metrics.*", "lineage.*", "format", "size_bytes", "created_by")
_ALIAS = "alias:"

Found = tuple[bool, str]
_Check = Callable[[Client, Mapping[str, Any]], Found]


@dataclass(frozen=True)
class Outcome:
    """One demand, whether the version meets it, and what was found."""

    demand: str
    ok: bool
    found: str


@dataclass(frozen=True)
class Demand:
    """Something a version must meet where it is, before it is moved. Made by ``demand_of``."""

    text: str
    check: _Check = field(repr=False, compare=False)

    def outcome(self, here: Client, version: Mapping[str, Any]) -> Outcome:
        """Look at a version, given as the control API describes it."""
        return Outcome(self.text, *self.check(here, version))


@dataclass(frozen=True)
class Promoted:
    """Which version it is there, and whether it is new or was there before."""

    version: int
    is_new: bool


def demand_of(text: str) -> Demand:
    """A demand from its text.

    verify           every file has the digest it was registered with
    signature        a key that is trusted here has signed it
    alias:NAME       that alias points to it
    served           an endpoint answers with it
    anything else    an expression that holds, as ``metrics.auc >= 0.7``

    Raises:
        InvalidInput: it is none of these.
    """
    text = text.strip()
    if text in _CHECKS:
        return Demand(text, _CHECKS[text])
    if text.startswith(_ALIAS):
        return Demand(text, _aliased(text.removeprefix(_ALIAS).strip()))
    return Demand(text, _holding(compile_expression(text, names=NAMES)))


def check(here: Client, version: Mapping[str, Any], *, requires: Sequence[str]) -> list[Outcome]:
    """Every demand's outcome; all are looked at, so that one look tells all that is missing.

    Raises:
        InvalidInput: a demand cannot be read; nothing was looked at then.
    """
    demands = [demand_of(text) for text in requires]
    return [demand.outcome(here, version) for demand in demands]


def find(there: Client, version: Mapping[str, Any]) -> int | None:
    """The newest version there that is the same files of the same format under the same signature, if there is one."""
    if version["model"] not in {row["name"] for row in there.models()}:
        return None
    same = ("digest", "format", "signature")
    for known in there.versions(version["model"]):
        if all(known[name] == version[name] for name in same):
            return int(known["version"])
    return None


def move(
    here: Client,
    there: Client,
    *,
    version: Mapping[str, Any],
    alias: str = "",
    trust: bool = False,
    source: str = "",
) -> Promoted:
    """Move a version: its archive flows from here to there, through no file.

    Raises:
        IntegrityFailure: what is there now has another digest, or its files are not intact.
        PredisError: what either side says.
    """
    model, number = version["model"], version["version"]
    known = find(there, version)
    if known is None:
        with here.archive(model, number) as archive:
            made = there.import_version(archive, alias=alias, trust=trust, source=source)
        promoted = Promoted(int(made["version"]), bool(made["is_new"]))
    else:
        promoted = Promoted(known, is_new=False)
        if alias:
            there.alias(model, alias, version=known)
    arrived = there.verify(model, promoted.version)
    if arrived["digest"] != version["digest"] or not arrived["ok"]:
        raise IntegrityFailure(
            f"{model}@{promoted.version} there is not {model}@{number} here: `predis model verify` there tells what is damaged"
        )
    return promoted


def _verified(here: Client, version: Mapping[str, Any]) -> Found:
    report = here.verify(version["model"], version["version"])
    problems = [f"{file['name']}: {file['problem']}" for file in report["files"] if not file["ok"]]
    return bool(report["ok"]), problems[0] if problems else f"{len(report['files'])} files intact"


def _signed(_here: Client, version: Mapping[str, Any]) -> Found:
    names = [key["name"] for key in version["signed_by"]]
    return bool(names), f"signed by {', '.join(names)}" if names else "no key that is trusted has signed it"


def _served(here: Client, version: Mapping[str, Any]) -> Found:
    number = str(version["version"])
    names = [
        endpoint["name"]
        for endpoint in here.endpoints()
        if endpoint["model"] == version["model"] and _answers(endpoint["route"], number)
    ]
    return bool(names), f"served by {', '.join(names)}" if names else "no endpoint answers with it"


def _answers(route: Mapping[str, Any], number: str) -> bool:
    splits = [route, *route.get("segments", ())]
    return any(split["weights"].get(number, 0) > 0 for split in splits)


def _aliased(name: str) -> _Check:
    if not name:
        raise InvalidInput("the demand 'alias:' must name an alias, as in 'alias:approved'")

    def check(here: Client, version: Mapping[str, Any]) -> Found:
        points_to = here.aliases(version["model"]).get(name)
        if points_to is None:
            return False, f"there is no alias {name!r}"
        return points_to == version["version"], f"it points to version {points_to}"

    return check


def _holding(expression: Expression) -> _Check:
    def check(_here: Client, version: Mapping[str, Any]) -> Found:
        def get(name: str) -> Any:
            found: Any = version
            for part in name.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
            return found

        values = [f"{name} is {get(name)!r:.80}" for name in sorted(expression.names)]
        return expression.holds(get), ", ".join(values)

    return check


_CHECKS: dict[str, _Check] = {"verify": _verified, "signature": _signed, "served": _served}
