"""What is done with each command over a cluster.

Most have keys of one slot and go to its node. Of those without keys most go to the client's home, one node of the cluster. The rest stand
below: commands of many slots that can be done slot by slot, commands of the whole cluster, and those that say something of the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from predis.cache.cluster import subscribers, transactions
from predis.cache.cluster.asks import (
    Ask,
    Merge,
    any_of,
    first,
    joined,
    least,
    least_each,
    placed,
    total,
)
from predis.cache.cluster.slots import slot_of
from predis.cache.commands import Described, described
from predis.cache.resp import OK, Command, array, bulk, command, error, items

if TYPE_CHECKING:
    from predis.cache.cluster.transport import ClusterTransport

Verb = Callable[["ClusterTransport", Command], None]

_SPELLINGS = 4_096
_NODES = 1_024  # whose cursors SCAN can tell apart


class VerbInside(Protocol):
    """The same, inside a transaction."""

    def __call__(self, flow: ClusterTransport, sent: Command, *, described: Described | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done with a command.

    ``alone``: only once all before it are answered. ``in_multi``: what is done with it in a transaction; None: the same as outside.
    ``subs``: rules of its subcommands; those that are not there have this one.
    """

    send: Verb
    alone: bool = False
    in_multi: VerbInside | None = transactions.queue
    described: Described | None = None
    subs: Mapping[bytes, Rule] | None = None


class Rules(dict[bytes, Rule]):
    """Rules by the name a client wrote, in capitals or not.

    Args:
        commands: COMMAND's reply.
    """

    def __init__(self, commands: Sequence[Sequence[Any]]) -> None:
        super().__init__()
        known: dict[bytes, Rule] = {}
        for name, one in described(commands).items():
            known[name] = _keyed(one)
        for row in commands:
            subs = described(row[9]) if len(row) > 9 and row[9] else {}
            if subs:
                rules = {name.partition(b"|")[2]: _keyed(one) for name, one in subs.items()}
                known[bytes(row[0]).upper()] = Rule(_home, subs=rules)
        self._known = {**known, **_special(known)}

    def __missing__(self, name: bytes) -> Rule:
        rule = self._known.get(name.upper(), _ANY)
        if len(self) < _SPELLINGS and len(name) < 64:
            self[name] = rule
        return rule

    def of(self, args: Sequence[bytes]) -> Rule:
        rule = self[args[0]]
        if rule.subs is not None and len(args) > 1:
            return rule.subs.get(args[1].upper(), rule)
        return rule


def _home(flow: ClusterTransport, sent: Command) -> None:
    flow.ask(sent[1])


_ANY = Rule(_home)


def _keyed(one: Described) -> Rule:
    def send(flow: ClusterTransport, sent: Command) -> None:
        keys = one.keys(sent[0])
        ask = flow.ask(sent[1], slot_of(keys[0]) if keys else -1)
        if one.blocks:
            flow.barrier = flow.blocked = ask

    return Rule(send, described=one)


def _split(one: Described, merge: Callable[[Sequence[Sequence[int]]], Merge]) -> Rule:
    """A command whose arguments are keys, each for itself."""

    def send(flow: ClusterTransport, sent: Command) -> None:
        name, *keys = sent[0]
        places: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(slot_of(key), []).append(place)
        if len(places) < 2:
            flow.ask(sent[1], next(iter(places), -1))
            return
        parts = [
            Ask(command(name, *(keys[place] for place in where)), slot) for slot, where in places.items()
        ]
        flow.ask_several(parts, merge([*places.values()]))

    return Rule(send, described=one)


def _everywhere(merge: Merge) -> Rule:
    def send(flow: ClusterTransport, sent: Command) -> None:
        flow.ask_all(sent[1], merge)

    return Rule(send, in_multi=transactions.refuse)


def _wait(flow: ClusterTransport, sent: Command) -> None:
    """WAIT: for the replicas of every node that this client may have written to."""
    flow.barrier = flow.ask_all(sent[1], least, open_only=True)


def _scan(flow: ClusterTransport, sent: Command) -> None:
    """SCAN: node after node. What a client gets for a cursor is the node's own, and the number of the node among the masters."""
    args, raw = sent
    cursor = int(args[1]) if len(args) > 1 and args[1].isdigit() else -1
    masters = flow.slots.masters
    if cursor < 0 or cursor % _NODES >= len(masters):
        flow.ask(raw) if cursor < 0 else flow.reply(error("ERR invalid cursor"))
        return
    here, place = divmod(cursor, _NODES)
    ask = flow.at(masters[place], command(args[0], b"%d" % here, *args[2:]))

    def merge(replies: Sequence[bytes]) -> bytes:
        (reply,) = replies
        if reply.startswith(b"-"):
            return reply
        number, keys = items(reply)
        left = int(number[number.find(b"\n") + 1 : -2])
        then = left * _NODES + place if left else (place + 1) % len(masters)
        return array([bulk(b"%d" % then), keys])

    flow.ask_several([ask], merge)


# Of the connection


def _say(key: bytes) -> Verb:
    """A command that is said on every connection of the client, and the next time instead of the one before."""

    def send(flow: ClusterTransport, sent: Command) -> None:
        def granted(replies: Sequence[bytes]) -> bytes:
            flow.said[key] = sent[1]
            return replies[0]

        flow.tell_all(sent[1], granted)

    return send


def _auth(flow: ClusterTransport, sent: Command) -> None:
    def granted(replies: Sequence[bytes]) -> bytes:
        flow.said = {b"AUTH": sent[1], **{key: raw for key, raw in flow.said.items() if key != b"AUTH"}}
        return replies[0]

    flow.tell_all(sent[1], granted)


def _hello(flow: ClusterTransport, sent: Command) -> None:
    args, raw = sent

    def granted(replies: Sequence[bytes]) -> bytes:
        if len(args) > 1:
            flow.protocol = int(args[1])
            flow.said = _greeted(flow.said, args)
        return replies[0]

    flow.tell_all(raw, granted)


def _greeted(said: Mapping[bytes, bytes], args: Sequence[bytes]) -> dict[bytes, bytes]:
    """What is to be said from now on, after HELLO version [AUTH user password] [SETNAME name]."""
    new: dict[bytes, bytes] = {key: said[key] for key in (b"AUTH",) if key in said}
    place, rest = 2, {key: raw for key, raw in said.items() if key not in (b"AUTH", b"HELLO")}
    while place < len(args):
        if args[place].upper() == b"AUTH":
            new[b"AUTH"] = command(b"AUTH", *args[place + 1 : place + 3])
            place += 3
        else:
            rest[b"SETNAME"] = command(b"CLIENT", b"SETNAME", args[place + 1])
            place += 2
    return {**new, b"HELLO": command(b"HELLO", args[1]), **rest}


def _reset(flow: ClusterTransport, sent: Command) -> None:
    flow.forget()
    flow.barrier = flow.ask(sent[1])


def _quit(flow: ClusterTransport, sent: Command) -> None:
    flow.barrier = flow.ask(sent[1])


def _reply(flow: ClusterTransport, sent: Command) -> None:
    """CLIENT REPLY: nodes are never told; replies that the client does not want end here."""
    what = sent[0][2].upper() if len(sent[0]) == 3 else b""
    if what == b"ON":
        flow.muted = flow.skip = False
        flow.reply(OK)
    elif what == b"OFF":
        flow.muted = True
    elif what == b"SKIP":
        flow.skip = not flow.muted
    else:
        flow.ask(sent[1])


def _setinfo(flow: ClusterTransport, sent: Command) -> None:
    _say(b"SETINFO " + b" ".join(sent[0][2:3]).upper())(flow, sent)


def _tracking(flow: ClusterTransport, sent: Command) -> None:
    """CLIENT TRACKING: every connection tracks what is read on it; invalidations of all reach the client."""
    words = [word.upper() for word in sent[0][2:]]
    if b"REDIRECT" in words:
        flow.reply(error("ERR CLIENT TRACKING does not REDIRECT over a cluster: use RESP3"))
        return

    def granted(replies: Sequence[bytes]) -> bytes:
        if words[0] == b"OFF":
            flow.said = {key: raw for key, raw in flow.said.items() if not key.startswith(_TRACKING)}
        else:
            flow.said[_TRACKING + b" ".join(words)] = sent[1]
        return replies[0]

    flow.tell_all(sent[1], granted)


def _caching(flow: ClusterTransport, sent: Command) -> None:
    """CLIENT CACHING: of the next command, wherever that goes."""
    modes = {word for key in flow.said if key.startswith(_TRACKING) for word in key.split()}
    wanted = {b"YES": b"OPTIN", b"NO": b"OPTOUT"}.get(sent[0][2].upper() if len(sent[0]) == 3 else b"")
    if wanted not in modes:
        flow.ask(sent[1])  # Valkey says what is wrong
        return
    flow.reply(OK)
    flow.ahead = sent[1]


_TRACKING = b"TRACKING "


def _state(send: Verb) -> Rule:
    return Rule(send, alone=True, in_multi=transactions.refuse)


def _client() -> Rule:
    said = {
        name: _state(_say(name)) for name in (b"SETNAME", b"NO-EVICT", b"NO-TOUCH", b"CAPA", b"IMPORT-SOURCE")
    }
    subs = {
        **said,
        b"SETINFO": _state(_setinfo),
        b"TRACKING": _state(_tracking),
        b"CACHING": Rule(_caching, in_multi=transactions.refuse),
        b"REPLY": Rule(_reply, in_multi=transactions.refuse),
    }
    return Rule(_home, subs=subs)


def _of(*names: bytes, rule: Rule, other: Rule | None = None) -> Rule:
    """Of a container: these subcommands have a rule of their own."""
    subs = (other.subs if other is not None else None) or {}
    return Rule(_home, subs={**subs, **dict.fromkeys(names, rule)})


def _special(known: Mapping[bytes, Rule]) -> dict[bytes, Rule]:
    def told(name: bytes) -> Described:
        one = known[name].described
        assert one is not None
        return one

    counted = (name for name in (b"DEL", b"UNLINK", b"EXISTS", b"TOUCH") if name in known)
    watch = told(b"WATCH")
    return {
        **{name: _split(told(name), lambda _: total) for name in counted},
        b"MGET": _split(told(b"MGET"), placed),
        b"DBSIZE": _everywhere(total),
        b"FLUSHALL": _everywhere(first),
        b"FLUSHDB": _everywhere(first),
        b"KEYS": _everywhere(joined),
        b"SCAN": Rule(_scan, in_multi=transactions.refuse),
        b"WAIT": Rule(_wait),
        b"SCRIPT": _of(
            b"LOAD", b"FLUSH", rule=_everywhere(first), other=_of(b"EXISTS", rule=_everywhere(least_each))
        ),
        b"FUNCTION": _of(b"LOAD", b"DELETE", b"FLUSH", b"RESTORE", rule=_everywhere(first)),
        b"CONFIG": _of(b"SET", b"RESETSTAT", b"REWRITE", rule=_everywhere(first)),
        b"ACL": _of(b"SETUSER", b"DELUSER", b"LOAD", b"SAVE", rule=_everywhere(any_of)),
        b"MULTI": Rule(transactions.begin),
        b"EXEC": Rule(transactions.end, in_multi=None),
        b"DISCARD": Rule(transactions.end, in_multi=None),
        b"WATCH": Rule(lambda flow, sent: transactions.watch(flow, sent, described=watch), described=watch),
        b"UNWATCH": Rule(transactions.unwatch),
        b"AUTH": _state(_auth),
        b"HELLO": _state(_hello),
        b"SELECT": _state(_say(b"SELECT")),
        b"RESET": Rule(_reset, alone=True, in_multi=None),
        b"QUIT": Rule(_quit, alone=True, in_multi=None),
        b"CLIENT": _client(),
        **dict.fromkeys(subscribers.COMMANDS, _state(subscribers.subscribe)),
        **dict.fromkeys((b"MONITOR", b"SYNC", b"PSYNC"), _state(subscribers.listen)),
    }
