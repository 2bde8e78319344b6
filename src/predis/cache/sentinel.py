"""A Valkey that Sentinels watch: which server is the master, and what happens when it becomes another.

All Sentinels of the URL are asked, four times a second, and the one with the highest configuration epoch is believed: one that was cut
off from the others cannot lead back to a master of yesterday. A server is used only once it says itself (ROLE) that it is a master.

When the master is another, every connection to the one before is cut, those of clients and the gateway's own: clients connect anew, as
after a crash, and reach the new one. Nothing that was on its way is sent again. Until the Sentinels have agreed on a new master, which
takes ``down-after-milliseconds`` and some more, clients that come are told LOADING, which Redis clients retry.
Protocol: https://valkey.io/topics/sentinel-clients/
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from predis.cache.cluster.upstream import Cluster
from predis.cache.link import Link as Aside
from predis.cache.link import LinkDown
from predis.cache.upstream import Single, ended
from predis.errors import Unreachable
from predis.valkeys import Address, Clustered, Watched

if TYPE_CHECKING:
    from predis.cache.session import Session
    from predis.cache.upstream import Link

log = logging.getLogger(__name__)

LOOK_S, ANSWER_S = 0.25, 0.5
_FRESH_S = 2 * LOOK_S  # what was heard before is asked again


class Followed(Single):
    """The upstream at whichever server is master now."""

    def __init__(self, watched: Watched) -> None:
        super().__init__(watched.master)
        self._name = watched.name
        self._sentinels = [
            Aside(Single(sentinel), connections=1, timeout_s=ANSWER_S, pause_s=0.0)
            for sentinel in watched.sentinels
        ]
        self._places = ", ".join(map(str, watched.sentinels))
        self._master: Address | None = None
        self._epoch = -1
        self._heard_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._links: WeakSet[Link] = WeakSet()
        self._acts: list[Callable[[], None]] = []

    async def where(self) -> Address:
        if self._master is None or asyncio.get_running_loop().time() - self._heard_at > _FRESH_S:
            await self._look_once()
        if self._master is None:
            raise Unreachable(f"no Sentinel of {self._places} tells of a master {self._name!r}")
        return self._master

    def on_switch(self, act: Callable[[], None]) -> None:
        self._acts.append(act)

    async def follow(self) -> None:
        """See where the master is, for ever; leave one that is none any more."""
        try:
            while True:
                await self._look_once()
                await asyncio.sleep(LOOK_S)
        finally:
            await ended(self._looking)
            for sentinel in self._sentinels:
                await sentinel.close()

    async def _try(self, session: Session) -> Link:
        address = await self.where()
        link = await self._open(address, session, greeting=[*address.greeting, (b"ROLE",)])
        if address != self._master:
            assert link.transport is not None
            link.transport.abort()
            raise ConnectionError("the master has become another")
        self._links.add(link)
        return link

    def _judge(self, replies: Sequence[bytes]) -> None:
        super()._judge(replies)
        if b"\r\nmaster\r\n" not in replies[-1][:24]:
            raise ConnectionError("it is no master any more")

    async def _look_once(self) -> None:
        """Ask the Sentinels; who asks at the same time shares the answer."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    def _looked(self, _task: asyncio.Task[None]) -> None:
        self._looking = None

    async def _look(self) -> None:
        told = await asyncio.gather(*map(self._told, self._sentinels))
        heard = [one for one in told if one is not None]
        if not heard:
            return
        self._heard_at = asyncio.get_running_loop().time()
        epoch, host, port = max(heard)
        if epoch < self._epoch:
            return
        master = replace(self.address, host=host, port=port)
        before, self._master, self._epoch = self._master, master, epoch
        if before is not None and before != master:
            self._switch(master)

    async def _told(self, sentinel: Aside) -> tuple[int, str, int] | None:
        """What one Sentinel says: the epoch of its configuration, the master's host and port."""
        try:
            (reply,) = await sentinel.ask([("SENTINEL", "MASTER", self._name)])
        except LinkDown:
            return None
        if isinstance(reply, Exception):
            log.warning("a Sentinel does not tell of %s: %s", self._name, reply)
            return None
        said: dict[bytes, Any] = dict(zip(reply[::2], reply[1::2], strict=True))
        return int(said[b"config-epoch"]), said[b"ip"].decode(), int(said[b"port"])

    def _switch(self, master: Address) -> None:
        log.warning("the master %s is %s now; connections to the one before are cut", self._name, master)
        for link in list(self._links):
            if link.transport is not None:
                link.transport.abort()
        self._links.clear()
        for act in self._acts:
            act()


def upstream_of(url: str) -> Single:
    """What a URL names: one server, the master that Sentinels watch, or a cluster.

    Raises:
        InvalidSetting: it is no such URL.
    """
    if Clustered.is_url(url):
        return Cluster(Clustered.of(url))
    return Followed(Watched.of(url)) if Watched.is_url(url) else Single(Address.of(url))
