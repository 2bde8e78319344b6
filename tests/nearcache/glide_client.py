"""What an application does with valkey-glide. Argument: the port. Prints what it found."""

from __future__ import annotations

import asyncio
import json
import sys

import glide


async def main(port: int) -> None:
    configuration = glide.GlideClientConfiguration(
        [glide.NodeAddress("127.0.0.1", port)], request_timeout=30_000
    )
    client = await glide.GlideClient.create(configuration)
    await client.set("greeting", "grüße")
    await client.hset("user:1", {"name": "Ada"})
    batch = glide.Batch(is_atomic=True)
    batch.incr("count")
    batch.incr("count")
    found = {
        "get": (await client.get("greeting")).decode(),
        "nothing": await client.get("nothing"),
        "hash": {name.decode(): value.decode() for name, value in (await client.hgetall("user:1")).items()},
        "multi": await client.exec(batch, raise_on_error=True),
    }
    sys.stdout.write(json.dumps(found))
    await client.close()


asyncio.run(main(int(sys.argv[1])))
