"""Schemathesis asks a running worker everything that two OpenAPI documents allow: ours, and the protocol's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from predis.serving import openapi
from tests import toys
from tests.installation import Installation, running, settings_of

ROOT = Path(__file__).parents[2]
EXAMPLES = "20"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("openapi")
    with running(settings_of(folder / "home", workers=1, max_body_bytes=1 << 20)) as found:
        found.deploy_toy(folder)
        yield found


def test_our_document_is_served_and_true(installation: Installation, tmp_path: Path) -> None:
    with urlopen(f"{installation.serving}/openapi.json") as answer:
        document = json.load(answer)
    assert document == json.loads(json.dumps(openapi.document()))
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    ask_everything(installation, filled(document), tmp_path, checks=checks)


def test_the_protocols_document_is_true_of_us(installation: Installation, tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts" / "setup-clients"], check=True)
    script = Path(__file__).parent / "protocol_openapi.py"
    shown = subprocess.run(
        [ROOT / ".venv-clients" / "bin" / "python", script, toys.ENDPOINT, "1"],
        capture_output=True,
        check=True,
    )
    checks = "not_a_server_error,status_code_conformance,response_schema_conformance"
    ask_everything(installation, json.loads(shown.stdout), tmp_path, checks=checks)


def filled(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the toy endpoint in its paths, so that what is asked reaches a model. Unloading is left out, for it would."""
    names = {"endpoint": toys.ENDPOINT, "version": "1"}
    paths = {}
    for path, item in document["paths"].items():
        if not path.endswith("/unload"):
            paths[path.format(**names)] = {key: value for key, value in item.items() if key != "parameters"}
    return {**document, "paths": paths}


def ask_everything(
    installation: Installation, document: dict[str, Any], folder: Path, *, checks: str
) -> None:
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    told = subprocess.run(
        [Path(sys.executable).parent / "schemathesis", "run", file, "--url", installation.serving, "--checks", checks,
         "--max-examples", EXAMPLES, "--seed", "20261121", "--no-color"],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-6_000:]
    assert installation.restarts == []
