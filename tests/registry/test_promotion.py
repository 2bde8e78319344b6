from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from predis.errors import IntegrityFailure, InvalidInput, ModelNotFound
from predis.registry import promotion
from predis.registry.promotion import Promoted

VERSION = {
    "model": "churn", "version": 7, "digest": "d" * 64, "format": "lightgbm", "signature": {"inputs": []}, "size_bytes": 10,
    "metrics": {"auc": 0.71}, "lineage": {"team": "risk"}, "created_by": "alice", "signed_by": [],
}  # fmt: skip


class Server:
    """What a client says of an installation, as a script has it; what it was asked is kept."""

    def __init__(self, **said: Any) -> None:
        self.said = said
        self.asked: list[Any] = []

    def verify(self, _model: str, _version: int) -> Any:
        sound = {
            "digest": VERSION["digest"],
            "ok": True,
            "files": [{"name": "model.txt", "ok": True, "problem": ""}],
        }
        return self.said.get("report", sound)

    def aliases(self, model: str) -> Any:
        if "aliases" not in self.said:
            raise ModelNotFound(model)
        return self.said["aliases"]

    def endpoints(self) -> Any:
        return self.said.get("endpoints", [])

    def models(self) -> Any:
        return [{"name": "churn"}] if "versions" in self.said else []

    def versions(self, _model: str) -> Any:
        return self.said["versions"]

    def alias(self, model: str, alias: str, *, version: int) -> None:
        self.asked.append((model, alias, version))

    @contextlib.contextmanager
    def archive(self, model: str, version: int) -> Iterator[str]:
        yield f"archive of {model}@{version}"

    def import_version(self, archive: str, **wanted: Any) -> Any:
        self.asked.append((archive, wanted))
        return {"version": 3, "is_new": True}


def outcome(demand: str, version: dict[str, Any] = VERSION, **said: Any) -> tuple[bool, str]:
    (found,) = promotion.check(Server(**said), version, requires=[demand])  # type: ignore[arg-type]
    return found.ok, found.found


class TestDemands:
    def test_verify(self) -> None:
        assert outcome("verify") == (True, "1 files intact")
        damaged = {
            "ok": False,
            "files": [
                {"name": "a", "ok": True, "problem": ""},
                {"name": "b", "ok": False, "problem": "gone"},
            ],
        }
        assert outcome(" verify ", report=damaged) == (False, "b: gone")

    def test_signature(self) -> None:
        assert outcome("signature") == (False, "no key that is trusted has signed it")
        signed = {**VERSION, "signed_by": [{"key": "k", "name": "release"}]}
        assert outcome("signature", signed) == (True, "signed by release")

    def test_alias(self) -> None:
        assert outcome("alias:approved", aliases={"approved": 7}) == (True, "it points to version 7")
        assert outcome("alias: approved", aliases={"approved": 6}) == (False, "it points to version 6")
        assert outcome("alias:approved", aliases={}) == (False, "there is no alias 'approved'")

    @pytest.mark.parametrize(
        ("route", "ok"),
        [
            ({"weights": {"7": 0.1, "6": 0.9}}, True),
            ({"weights": {"7": 0.0, "6": 1.0}}, False),
            ({"weights": {"6": 1.0}, "segments": [{"when": "key == 'a'", "weights": {"7": 1.0}}]}, True),
            ({"weights": {}}, False),
        ],
    )
    def test_served(self, route: dict[str, Any], ok: bool) -> None:
        endpoints = [
            {"name": "calm", "model": "churn", "route": route},
            {"name": "other", "model": "fraud", "route": {"weights": {"7": 1.0}}},
        ]
        assert outcome("served", endpoints=endpoints) == (
            ok, "served by calm" if ok else "no endpoint answers with it",
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("metrics.auc >= 0.7", (True, "metrics.auc is 0.71")),
            ("metrics.auc > 0.72", (False, "metrics.auc is 0.71")),
            ("metrics.gini > 0", (False, "metrics.gini is None")),
            (
                "lineage.team == 'risk' and size_bytes < 100",
                (True, "lineage.team is 'risk', size_bytes is 10"),
            ),
        ],
    )
    def test_expressions(self, text: str, expected: tuple[bool, str]) -> None:
        assert outcome(text) == expected

    @pytest.mark.parametrize("text", ["", "alias:", "metrics.auc >=", "verified", "import os"])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(InvalidInput):
            promotion.demand_of(text)

    def test_all_are_looked_at(self) -> None:
        found = promotion.check(Server(), VERSION, requires=["signature", "verify", "served"])  # type: ignore[arg-type]
        assert [(one.demand, one.ok) for one in found] == [
            ("signature", False),
            ("verify", True),
            ("served", False),
        ]


class TestMove:
    def move(self, there: Server, **more: Any) -> Promoted:
        return promotion.move(Server(), there, version=VERSION, **more)  # type: ignore[arg-type]

    def test_a_version_that_is_not_there(self) -> None:
        there = Server(versions=[{**VERSION, "version": 2, "format": "onnx"}])
        assert self.move(there, alias="candidate", source="https://dev") == Promoted(3, is_new=True)
        wanted = {"alias": "candidate", "trust": False, "source": "https://dev"}
        assert there.asked == [("archive of churn@7", wanted)]

    def test_one_that_is(self) -> None:
        there = Server(versions=[{**VERSION, "version": 2}, {**VERSION, "version": 1}])
        assert self.move(there) == Promoted(2, is_new=False)
        assert there.asked == []
        self.move(there, alias="candidate")
        assert there.asked == [("churn", "candidate", 2)]

    @pytest.mark.parametrize("report", [{"digest": "e" * 64, "ok": True}, {"digest": "d" * 64, "ok": False}])
    def test_what_arrived_is_something_else(self, report: dict[str, Any]) -> None:
        with pytest.raises(IntegrityFailure, match="churn@3 there is not churn@7 here"):
            self.move(Server(report=report))
