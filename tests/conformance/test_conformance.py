"""Real, unmodified clients of the protocol against a running installation, each in a process of its own.

``suite.py`` has how, ``clients/`` what; docs/reference/conformance.md lists all checks and is written by ``page.py``.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from predis.client import Client
from predis.errors import InvalidInput, Unauthenticated
from predis.settings import Settings
from scripts.protobuf import TARGET
from tests.conformance import models, page
from tests.conformance.suite import CLIENTS, suite
from tests.installation import Installation, running, settings_of, wait_for

ROOT = Path(__file__).parents[2]
CHECKS = [(client, check.name) for client in CLIENTS for check in suite(client)[0].of(suite(client)[1])]
Problems = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of the clients' environment, made on first use."""
    subprocess.run([ROOT / "scripts" / "setup-clients"], check=True)
    return ROOT / ".venv-clients" / "bin" / "python"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    home = tmp_path_factory.mktemp("conformance")
    settings = settings_of(home / "home", workers=2)
    with running(settings) as found:
        found.deploy_toy(home)
        for name in ("simple", "simple_string", "types", "classes"):
            deploy(found, name, getattr(models, name)(), home)
        deploy(found, "spare", models.simple(), home)
        yield found


def deploy(installation: Installation, name: str, graph: bytes, folder: Path) -> None:
    file = folder / f"{name}.onnx"
    file.write_bytes(graph)
    installation.client.register(name, file, format="onnx")
    installation.client.create_endpoint(name, name)
    installation.finish(installation.client.deploy(name, 1, strategy="direct")["id"])


@pytest.fixture(scope="module")
def problems(python: Path, installation: Installation) -> Problems:
    """What every check of every client came to; first without keys, then, from the first key on, with one."""
    found: Problems = {}
    for client in CLIENTS:
        found |= run(python, client, installation.settings)
    key = make_key(installation)
    for client in CLIENTS:
        found |= run(python, client, installation.settings, key)
    return found


def make_key(installation: Installation) -> str:
    """A key that may predict. Returns when every worker asks for one."""
    key = str(installation.client._api("POST", "/keys", body={"name": "client", "role": "client"})["key"])

    def is_asked() -> bool:
        with Client(installation.control, installation.serving, retry_s=0.0) as stranger:
            try:
                stranger.infer("simple", {"inputs": []})
            except Unauthenticated:
                return True
            except InvalidInput:
                return False
        raise AssertionError("a request without inputs was answered")

    wait_for(
        lambda: all(is_asked() for _connection in range(10))
    )  # the kernel spreads connections over the workers
    return key


def run(python: Path, client: str, settings: Settings, *key: str) -> Problems:
    targets = (f"127.0.0.1:{settings.http_port}", f"127.0.0.1:{settings.grpc_port}")
    result = subprocess.run(
        [python, "-m", "tests.conformance.suite", client, *targets, *key],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith('{"check"')]
    assert lines, result.stderr
    return {(client, line["check"]): line["problem"] for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize(("client", "check"), CHECKS)
def test_a_real_client(problems: Problems, client: str, check: str) -> None:
    assert problems[client, check] == ""


DESCRIPTORS = """
import base64, importlib, json, sys
modules = [importlib.import_module(name) for name in sys.argv[1:]]
sys.stdout.write(json.dumps([base64.b64encode(module.DESCRIPTOR.serialized_pb).decode() for module in modules]))
"""
PROTOCOLS = (
    ("tritonclient.grpc.service_pb2", "tritonclient.grpc.model_config_pb2"),
    ("kserve.protocol.grpc.grpc_predict_v2_pb2",),
    ("open_inference.grpc.protocol",),
)


def numbers_of(file: Any) -> dict[tuple[str, int], tuple[Any, ...]]:
    """What travels: the fields of messages, and the values of enumerations, by number."""
    found = {(enum.name, value.number): (value.name,) for enum in file.enum_type for value in enum.value}
    for message in file.message_type:
        found |= fields_of(message)
    return found


def fields_of(message: Any, prefix: str = "") -> dict[tuple[str, int], tuple[Any, ...]]:
    """By message and number the name, the kind and what it is made of."""
    name = f"{prefix}{message.name}"
    found = {
        (name, f.number): (f.name, f.type, f.label, f.type_name.rpartition(".")[2]) for f in message.field
    }
    for nested in message.nested_type:
        found |= fields_of(nested, f"{name}.")
    return found


@pytest.mark.slow
def test_our_messages_are_theirs(python: Path) -> None:
    """Every field and value of ours is one of a client's, number for number."""
    ours = numbers_of(FileDescriptorSet.FromString(TARGET.read_bytes()).file[0])
    theirs: list[dict[tuple[str, int], tuple[Any, ...]]] = []
    for modules in PROTOCOLS:
        command = [python, "-c", DESCRIPTORS, *modules]
        result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        files = [FileDescriptorProto.FromString(base64.b64decode(text)) for text in json.loads(result.stdout)]
        theirs.append({at: field for file in files for at, field in numbers_of(file).items()})
    strange = {at: field for at, field in ours.items() if all(their.get(at) != field for their in theirs)}
    assert strange == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "client",
    ["tritonclient.grpc", "kserve.protocol.grpc.grpc_predict_v2_pb2", "open_inference.grpc.protocol"],
)
def test_predis_and_a_client_live_in_one_process(python: Path, client: str) -> None:
    """Each of them fails where another has been imported: all register the same names."""
    (packages,) = (ROOT / ".venv-clients" / "lib").glob("python*/site-packages")
    ours = "from predis.serving import grpc_server"
    theirs = f"import sys; sys.path.append({str(packages)!r}); import {client}"
    for first, second in ((ours, theirs), (theirs, ours)):
        subprocess.run([sys.executable, "-c", f"{first}\n{second}"], check=True)


def test_the_page_lists_every_check() -> None:
    """If this fails: .venv/bin/python -m tests.conformance.page"""
    assert page.FILE.read_text("utf-8") == page.text()
