"""A process that writes ever newer versions of a few keys and says so once the server has confirmed them.

Run with the server's port, the keys it alone writes, and a number of writes. A line of standard output is "KEY VERSION", written after the reply.
"""

from __future__ import annotations

import random
import sys

import redis

port, writes, *keys = sys.argv[1:]
client = redis.Redis(port=int(port))
draw = random.Random(keys[0])
for version in range(1, int(writes) + 1):
    key = draw.choice(keys)
    if version % 5 == 0:
        with client.pipeline() as pipe:
            pipe.delete(key)
            pipe.set(key, version)
            pipe.execute()
    else:
        client.set(key, version)
    sys.stdout.write(f"{key} {version}\n")
    sys.stdout.flush()
    sys.stdin.readline()
