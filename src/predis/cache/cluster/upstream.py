"""The cluster behind the gateway: who has which slot now, and clients' connections to it.

What one node says (CLUSTER SLOTS) is believed: all know all. It is asked once a second, and at once when a node sends a client elsewhere
or does not answer. What a node says with MOVED counts until then. Clients of a node that is no master any more are disconnected.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from predis.cache.cluster.branch import Branch
from predis.cache.cluster.rules import Rules
from predis.cache.cluster.slots import Node, SlotMap, told
from predis.cache.cluster.transport import ClusterTransport
from predis.cache.link import Link as Aside
from predis.cache.link import LinkDown
from predis.cache.resp import command
from predis.cache.upstream import CONNECT_S, Link, Single, ended, open_stream
from predis.errors import Unreachable
from predis.valkeys import Address, Clustered

if TYPE_CHECKING:
    from predis.cache.session import Session

log = logging.getLogger(__name__)

LOOK_S, ANSWER_S = 1.0, 1.0
_SOON_S = 0.05
_OWN_PATIENCE_S = 0.5

_P = TypeVar("_P", bound=asyncio.Protocol)


class Cluster(Single):
    """The upstream over all nodes.

    Args:
        tls: how to talk to them where the URL asks for TLS.
    """

    rules: Rules

    def __init__(self, clustered: Clustered, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(clustered.seeds[0], tls=tls)
        self._seeds = clustered.seeds
        self._nodes: dict[tuple[str, int], Node] = {}
        self._told: Sequence[Any] | None = None  # CLUSTER SLOTS' last reply; None: the map has changed since
        self._looking: asyncio.Task[None] | None = None
        self._soon = asyncio.Event()
        self._flows: WeakSet[ClusterTransport] = WeakSet()
        self._known = False  # whether a node has told of the cluster
        self.slots = SlotMap.of([])

    async def follow(self) -> None:
        """See who has which slot, for ever."""
        try:
            while True:
                await self._look_once()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._soon.wait()
                await asyncio.sleep(_SOON_S)
                self._soon.clear()
        finally:
            await ended(self._looking)

    async def open_for(self, make: Callable[[], _P]) -> tuple[_P, Sequence[tuple[bytes, ...]]]:
        protocol = make()
        flow = await self._flow(protocol, patience_s=_OWN_PATIENCE_S)
        protocol.connection_made(flow)
        return protocol, ()

    async def _try(self, session: Session) -> Link:
        link = Link(session)
        link.connection_made(await self._flow(link, patience_s=CONNECT_S))
        return link

    async def _flow(self, protocol: asyncio.Protocol, *, patience_s: float) -> ClusterTransport:
        if not self._known:
            await self._look_once()
            if not self._known:
                places = ", ".join(map(str, self._seeds))
                raise Unreachable(f"no node of {places} tells of a cluster")
        flow = ClusterTransport(self, protocol, patience_s=patience_s)
        try:
            await flow.begin()
        except OSError:
            self.look_soon()
            raise
        self._flows.add(flow)
        return flow

    # What clients' transports ask for

    def node_at(self, host: str, port: int, *, beside: Node | None = None) -> Node:
        host = host or (beside.address.host if beside is not None else self.address.host)
        node = self._nodes.get((host, port))
        if node is None:
            node = self._nodes[host, port] = Node(replace(self.address, host=host, port=port))
        return node

    def moved(self, slot: int, master: Node) -> None:
        if self.slots.owners[slot] is not master:
            self.slots = self.slots.moved(slot, master)
            self._told = None
            self.look_soon()

    def look_soon(self) -> None:
        self._soon.set()

    async def open(self, branch: Branch) -> None:
        await open_stream(branch.node.address, lambda: branch, tls=self.tls)

    def greeting(self, said: Sequence[bytes]) -> list[bytes]:
        return [*(command(*words) for words in self.address.greeting), *said]

    # Who has what

    async def _look_once(self) -> None:
        """Ask; who asks at the same time shares the answer."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    def _looked(self, _task: asyncio.Task[None]) -> None:
        self._looking = None

    async def _look(self) -> None:
        """Ask one after the other, masters first, until one answers."""
        masters = [node.address for node in self.slots.masters] if self._known else []
        for address in dict.fromkeys((*masters, *self._seeds)):
            questions = [("CLUSTER", "SLOTS")] if self._known else [("CLUSTER", "SLOTS"), ("COMMAND",)]
            try:
                replies = await self._ask(address, questions)
            except LinkDown as down:
                log.debug("%s does not tell of its cluster: %s", address, down)
                continue
            wrong = next((reply for reply in replies if isinstance(reply, Exception)), None)
            if wrong is not None or not replies[0]:
                log.warning("%s does not tell of its cluster: %s", address, wrong or "it has no slots")
                continue
            self._take(address, replies)
            return

    async def _ask(self, address: Address, questions: Sequence[Sequence[str]]) -> list[Any]:
        aside = Aside(Single(address, tls=self.tls), connections=1, timeout_s=ANSWER_S)
        try:
            return await aside.ask(questions)
        finally:
            await aside.close()

    def _take(self, told_by: Address, replies: Sequence[Any]) -> None:
        slots = replies[0]
        if slots == self._told:
            return
        teller = self.node_at(told_by.host, told_by.port)
        owners, replicas = told(slots, lambda host, port: self.node_at(host, port, beside=teller))
        if not self._known:
            self.rules = Rules(replies[1])
            self._known = True
        if owners != self.slots.owners:
            self.slots = SlotMap.of(owners)
        self._told = slots
        for flow in list(self._flows):
            flow.leave_if(replicas)
