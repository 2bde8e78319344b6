"""Checks of one client, and the process that runs them: ``python -m tests.conformance.suite CLIENT HTTP GRPC [KEY]``.

Clients of the protocol cannot share a process, for they register the same protobuf names, nor an environment with Predis. So a check is
a function that imports its client when it runs; this module and the suites themselves need the standard library and numpy only.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

# Which suite checks a client, and under what name the suite knows it.
CLIENTS = {
    "tritonclient.http": ("triton", "http"),
    "tritonclient.http.aio": ("triton", "http.aio"),
    "tritonclient.grpc": ("triton", "grpc"),
    "tritonclient.grpc.aio": ("triton", "grpc.aio"),
    "kserve.InferenceRESTClient": ("kserve", "rest"),
    "kserve.InferenceGRPCClient": ("kserve", "grpc"),
    "open_inference.openapi": ("open_inference", "openapi"),
    "open_inference.grpc": ("open_inference", "grpc"),
}


@dataclass(frozen=True)
class Target:
    """Where Predis answers, ``host:port`` each, and a key if it wants one."""

    flavour: str
    http: str
    grpc: str
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}


@dataclass(frozen=True)
class Check:
    """One thing a client does. ``keyed``: once the installation has keys, with one in ``Target.key``."""

    name: str
    run: Callable[[Target], Any]
    flavours: tuple[str, ...]
    keyed: bool


@dataclass
class Suite:
    """The checks of one package of clients; its clients are called flavours."""

    flavours: tuple[str, ...]
    checks: list[Check] = field(default_factory=list)

    def check(
        self, name: str, *flavours: str, keyed: bool = False
    ) -> Callable[[Callable[[Target], Any]], Any]:
        """A check of these flavours, or of all."""

        def add(run: Callable[[Target], Any]) -> Callable[[Target], Any]:
            self.checks.append(Check(name, run, flavours or self.flavours, keyed))
            return run

        return add

    def of(self, flavour: str) -> list[Check]:
        return [check for check in self.checks if flavour in check.flavours]


def suite(client: str) -> tuple[Suite, str]:
    """A client's suite, and its flavour there."""
    module, flavour = CLIENTS[client]
    found: Suite = importlib.import_module(f"tests.conformance.clients.{module}").SUITE
    return found, flavour


@contextlib.contextmanager
def refused(error: type[Exception], *fragments: str) -> Iterator[None]:
    """The client raises its own error, and our words are in it."""
    caught = None
    try:
        yield
    except error as found:
        caught = found
    assert caught is not None, f"no {error.__name__} was raised"
    for fragment in fragments:
        assert fragment in str(caught), f"{fragment!r} is not in {caught}"


def main(client: str, http: str, grpc: str, key: str = "") -> None:
    """Run a client's checks, those for keys if there is one, and print a line of JSON for each."""
    sys.argv = sys.argv[:1]  # the import of kserve reads the arguments
    found, flavour = suite(client)
    target = Target(flavour, http, grpc, key)
    for check in found.of(flavour):
        if check.keyed is not bool(key):
            continue
        problem = ""
        try:
            result = check.run(target)
            if inspect.isawaitable(result):
                asyncio.run(asyncio.wait_for(result, 60))
        except BaseException:
            problem = traceback.format_exc()
        sys.stdout.write(json.dumps({"check": check.name, "problem": problem}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
