"""Who loads a key, among all workers: leases in Valkey, and stores that hold only under one.

Beside a key stand two others, in its slot: the lease ``predis:flight:KEY`` of the worker that loads it, and the marker
``predis:none:KEY``, which says that the source has no value. Four scripts, each one round trip:

- ``enter``: the value, if there is one by now; or that there is none; or the lease; or that another has it.
- ``renewing``: the lease to load anew what is there, and a digest of it.
- ``store``: keep what was loaded, if the lease is still held and the key is as it was when the load began (absent, or of that digest).
- ``release`` and ``renew``: give the lease back, or keep it longer.

A write through the gateway deletes lease and marker before it is done. A load that began before it therefore stores nothing. A write that
passes the gateway by changes the key, and so is not overwritten either. A lease runs out ``LEASE_MS`` after its holder was last alive.
What cannot be stored for want of memory is still the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import secrets
from dataclasses import dataclass
from typing import Any

from predis.cache.link import Link, LinkDown, Word
from predis.cache.sources.encoding import Payload
from predis.cache.sources.pattern import beside

FLIGHT, NONE = b"predis:flight:", b"predis:none:"
LEASE_MS = 2_000
FOR_EVER_MS = 1 << 53
RENEW_S = 0.5

_DIGEST = """
local function digest(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return '' end
  if kind == 'string' then return redis.sha1hex(redis.call('GET', key)) end
  return redis.sha1hex(redis.call('DUMP', key))
end
"""

_ENTER = """
if ARGV[3] == 'hash' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return {'there'} end
else
  local value = redis.pcall('GET', KEYS[1])
  if type(value) == 'string' then return {'value', value} end
  if type(value) == 'table' and value.err then return {'other'} end
end
if redis.call('EXISTS', KEYS[3]) == 1 then return {'none'} end
local got = redis.pcall('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
if not got then return {'busy'} end
if got.err then return {'alone'} end
return {'lease'}
"""

_RENEWING = (
    _DIGEST
    + """
local found = digest(KEYS[1])
if found == '' or redis.call('PTTL', KEYS[1]) > tonumber(ARGV[3]) then return false end
local got = redis.pcall('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
if not got or got.err then return false end
return found
"""
)

_STORE = (
    _DIGEST
    + """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 'lost' end
if digest(KEYS[1]) ~= ARGV[2] then
  redis.call('DEL', KEYS[2])
  return 'changed'
end
local done = {}
if ARGV[3] == 'string' then
  done = redis.pcall('SET', KEYS[1], ARGV[6], 'PX', ARGV[4])
elseif ARGV[3] == 'hash' then
  if ARGV[2] ~= '' then redis.call('DEL', KEYS[1]) end
  for i = 6, #ARGV, 1000 do
    done = redis.pcall('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))
    if type(done) == 'table' and done.err then break end
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
else
  if ARGV[2] ~= '' then redis.call('DEL', KEYS[1]) end
  if ARGV[5] ~= '0' then done = redis.pcall('SET', KEYS[3], '1', 'PX', ARGV[5]) end
end
redis.call('DEL', KEYS[2])
if type(done) == 'table' and done.err then return 'full' end
return 'stored'
"""
)

_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"


@dataclass(frozen=True)
class Lease:
    """The right to store a key. ``digest``: of the value that is there, empty where there is none."""

    key: bytes
    token: str
    digest: str = ""


class Flights:
    """The scripts, as one worker calls them. Every method raises ``LinkDown`` where Valkey does not answer."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._who = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._numbers = itertools.count()
        self._asked: list[tuple[tuple[Word, ...], asyncio.Future[Any]]] = []
        self._exchanges: set[asyncio.Task[None]] = set()

    async def enter(self, key: bytes, *, hashed: bool) -> tuple[str, bytes | Lease | None]:
        """What is to be done about a key that was missing.

        ``value`` (and the value), ``there`` (a hash), ``other`` (another type), ``none`` (the source has none), ``lease`` (and the lease:
        load it), ``busy`` (another loads it), ``alone`` (load it; Valkey has no room for a lease).
        """
        token = self._token()
        keys = (key, beside(FLIGHT, key), beside(NONE, key))
        found = await self._run(_ENTER, keys, token, LEASE_MS, "hash" if hashed else "string")
        what = found[0].decode()
        if what == "lease":
            return what, Lease(key, token)
        return what, found[1] if what == "value" else None

    async def renewing(self, key: bytes, *, left_ms: int = FOR_EVER_MS) -> Lease | None:
        """The lease to load anew a value that is there; None where it is not, or another does or did.

        Args:
            left_ms: the PTTL that the value was seen with: one that has longer to live has been loaded anew since.
        """
        token = self._token()
        found = await self._run(_RENEWING, (key, beside(FLIGHT, key)), token, LEASE_MS, left_ms)
        return None if found is None else Lease(key, token, found.decode())

    async def store(self, lease: Lease, payload: Payload | None, *, ttl_ms: int, negative_ms: int) -> str:
        """``stored``; ``full`` (no memory); ``lost`` (a write came between, or the lease ran out) or ``changed`` (a write passed us by)."""
        kind, words = "none", []
        if isinstance(payload, bytes):
            kind, words = "string", [payload]
        elif payload is not None:
            kind, words = "hash", [word for field in payload.items() for word in field]
        keys = (lease.key, beside(FLIGHT, lease.key), beside(NONE, lease.key))
        found = await self._run(_STORE, keys, lease.token, lease.digest, kind, ttl_ms, negative_ms, *words)
        return str(found.decode())

    async def release(self, lease: Lease) -> None:
        await self._run(_RELEASE, (beside(FLIGHT, lease.key),), lease.token)

    async def renew(self, lease: Lease) -> None:
        await self._run(_RENEW, (beside(FLIGHT, lease.key),), lease.token, LEASE_MS)

    def _token(self) -> str:
        return f"{self._who}-{next(self._numbers)}"

    async def _run(self, script: str, keys: tuple[bytes, ...], *arguments: bytes | str | int) -> Any:
        words = (len(keys), *keys, *arguments)
        reply = await self._ask(("EVALSHA", _digests[script], *words))
        if isinstance(reply, Exception) and str(reply).startswith("NOSCRIPT"):
            reply = await self._ask(("EVAL", script, *words))
        if isinstance(reply, Exception):  # MOVED, READONLY, LOADING, MISCONF, no right: of no use now
            raise LinkDown(str(reply))
        return reply

    async def _ask(self, command: tuple[Word, ...]) -> Any:
        """One command's reply. What is asked in one round of the event loop goes together, so that its answers come together too: keys
        that are missed at once reach their source in one call.
        """
        loop = asyncio.get_running_loop()
        told = loop.create_future()
        if not self._asked:
            loop.call_soon(self._send)
        self._asked.append((command, told))
        return await told

    def _send(self) -> None:
        asked, self._asked = self._asked, []
        task = asyncio.get_running_loop().create_task(self._exchange(asked))
        self._exchanges.add(task)
        task.add_done_callback(self._exchanges.discard)

    async def _exchange(self, asked: list[tuple[tuple[Word, ...], asyncio.Future[Any]]]) -> None:
        try:
            replies = await self._link.ask([command for command, _ in asked])
        except LinkDown as error:
            replies = [error] * len(asked)
        for (_, told), reply in zip(asked, replies, strict=True):
            if not told.done():
                told.set_result(reply)


_digests = {
    script: hashlib.sha1(script.encode()).hexdigest()  # noqa: S324 it is how Valkey names scripts
    for script in (_ENTER, _RENEWING, _STORE, _RELEASE, _RENEW)
}


def ahead_of_write(keys: list[bytes]) -> bytes:
    """The one command, as RESP, that ends leases and markers of these keys."""
    names = [name for key in keys for name in (beside(FLIGHT, key), beside(NONE, key))]
    words = [b"DEL", *names]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def patterns_of(tenant: str) -> list[bytes]:
    """Valkey ACL patterns of a tenant's leases and markers: what ``ahead_of_write`` has to be allowed."""
    return [
        b"~%b%b%b:*" % (prefix, brace, tenant.encode()) for prefix in (FLIGHT, NONE) for brace in (b"", b"{")
    ]
