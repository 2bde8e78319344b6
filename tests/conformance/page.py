"""Writes docs/reference/conformance.md: ``.venv/bin/python -m tests.conformance.page``."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.suite import CLIENTS, suite

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "reference" / "conformance.md"
HEAD = """# Conformance

<!-- Written by tests/conformance/page.py from the checks; `.venv/bin/python -m tests.conformance.page` writes it anew. -->

Predis speaks the Open Inference Protocol V2 over HTTP and gRPC, with the extensions that its clients use. The proof is clients that
people have: each below is installed as its users install it ({versions}), runs unmodified, in a process of its own, against
`predis up` with LightGBM and ONNX models, and makes every call it has that has a meaning here. All {total} checks pass in every test run
(`make test ARGS="tests/conformance"`); one that does not is a defect.

A dot says that the check is made with that client. Where there is none the client has no such call.
"""


def versions() -> str:
    lines = (ROOT / "tests" / "conformance" / "clients.txt").read_text("utf-8").splitlines()
    return ", ".join(line.replace("==", " ") for line in lines if line and not line.startswith("#"))


def tables() -> list[str]:
    """One table per suite: its checks, and which of its clients make them."""
    by_module: dict[str, list[str]] = {}
    for client, (module, _flavour) in CLIENTS.items():
        by_module.setdefault(module, []).append(client)
    found = []
    for clients in by_module.values():
        made = {client: {check.name for check in suite(client)[0].of(suite(client)[1])} for client in clients}
        names = list(dict.fromkeys(check.name for check in suite(clients[0])[0].checks))
        rows = [
            f"| {name} | " + " | ".join("●" if name in made[c] else "" for c in clients) + " |"
            for name in names
        ]
        head = ["| check | " + " | ".join(clients) + " |", "|" + " --- |" * (len(clients) + 1)]
        total = "| **checks** | " + " | ".join(f"**{len(made[c])}**" for c in clients) + " |"
        found.append("\n".join([*head, *rows, total]))
    return found


def text() -> str:
    total = sum(len(suite(client)[0].of(suite(client)[1])) for client in CLIENTS)
    return "\n".join([HEAD.format(versions=versions(), total=total), "\n\n".join(tables()), ""])


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
