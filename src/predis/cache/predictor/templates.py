"""Rules between kinds of keys, which foretell keys that were never seen.

A table of keys knows only what it has met: the first visit of a new user finds nothing in it. But that ``prefs:81`` is read soon
after ``session:81`` is a fact about two *templates*, ``session:{}`` and ``prefs:{}``, and holds for every number. A rule says how the
arguments of the second are made from those of the first:

* copied: ``session:{u}`` -> ``prefs:{u}``;
* counted on: ``page:{n}`` -> ``page:{n+1}``, or further where one step ahead would come too late;
* taken from the value: ``order:7`` holds ``{"customer": 19}`` -> ``customer:19``;
* always the same text.

At least one argument must come from the first key or its value; else it is a popular key, which no rule is needed for.

Learning looks at each client's last few reads of each template: of each, so that a flood of one kind does not hide another. When a key
comes, every rule that would have made it from one of those reads is credited, once a read. Its *confidence* is how many of the first
template's reads earned a credit, its *on-time* confidence how many earned one that came later than a prefetch needs. Counts are halved
from time to time, so that what was true last month fades. All is bounded: clients, reads kept, templates, rules.

What a key's template is, the caller says where it knows (a Source's pattern); ``by_shape`` guesses it from the text.

The idea of templates with bound arguments is Apollo's (Glasbergen et al., EDBT 2018), there for SQL statements.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

Scalars: TypeAlias = Mapping[str, str]

_SEPARATORS = re.compile(r"([^0-9A-Za-z]+)")
STEPS = 4
"""The furthest that a number is counted on."""
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")


class Parsed(NamedTuple):
    """A key as its template and arguments, each as text; ``key`` is made from them again by ``Rule.key``."""

    template: str
    arguments: tuple[str, ...]


class Slot(NamedTuple):
    """Where an argument comes from.

    ``copy``: argument ``at`` of the first key, plus ``step`` (0: as it is, whatever it is); ``value``: field ``text`` of its value;
    ``same``: always ``text``.
    """

    source: Literal["copy", "value", "same"]
    at: int = 0
    step: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """After a key of ``first``, one of ``then``, its arguments as ``slots`` say."""

    first: str
    then: str
    slots: tuple[Slot, ...]

    @property
    def needs_value(self) -> bool:
        return any(slot.source == "value" for slot in self.slots)

    def arguments(self, arguments: tuple[str, ...], value: Scalars | None = None) -> tuple[str, ...] | None:
        """The second key's arguments; None where they cannot be made (a number that is none, a field that is not there)."""
        made = []
        for source, at, step, text in self.slots:
            if source == "same":
                made.append(text)
            elif source == "value":
                if value is None or text not in value:
                    return None
                made.append(value[text])
            elif step == 0:
                made.append(arguments[at])
            elif _NUMBER.fullmatch(arguments[at]):
                made.append(str(int(arguments[at]) + step))
            else:
                return None
        return tuple(made)

    def key(self, arguments: tuple[str, ...], value: Scalars | None = None) -> str | None:
        """The key itself. ``then`` has ``{}`` where an argument stands."""
        made = self.arguments(arguments, value)
        return None if made is None else fill(self.then, made)

    def __str__(self) -> str:
        names = "abcdefghijklmnopqrstuvwxyz"
        said = []
        for source, at, step, text in self.slots:
            name = f"{{{names[at % 26]}{step:+d}}}" if step else f"{{{names[at % 26]}}}"
            said.append({"copy": name, "value": f"{{value.{text}}}", "same": text}[source])
        first = [f"{{{names[i % 26]}}}" for i in range(self.first.count("{}"))]
        return f"{fill(self.first, first)} -> {fill(self.then, said)}"


class Learned(NamedTuple):
    """A rule with what was seen of it: shares of the first template's reads, and how far ahead it saw, in the unit of ``read``'s ``i``."""

    rule: Rule
    confidence: float
    on_time: float
    support: float
    lead: float


@dataclass(slots=True)
class _Read:
    i: int
    parsed: Parsed
    value: Scalars | None
    credited: set[Rule] = field(default_factory=set)


@dataclass(slots=True)
class _Count:
    all: float = 0.0
    on_time: float = 0.0
    lead: float = 0.0


class TemplateRules:
    """Learns rules from reads in order; says which hold.

    Args:
        delay: how long a prefetch takes, in the unit of ``read``'s ``i``; a credit that came sooner is not on time.
        window: how many reads of each template a key is compared with. More see further ahead, and cost more.
        templates: of how many templates a client's reads are remembered; the one not read for longest is forgotten.
        horizon: reads older than this, in the same unit, are not compared with.
        max_clients, max_rules: what is kept; the longest idle client, the weakest rules go.
        half_life: reads after which counts are halved. Shorter forgets sooner, and knows less for sure.

    >>> rules = TemplateRules(delay=0)
    >>> for u in range(20):
    ...     rules.read(2 * u, f"session:{u * 7}", client=u)
    ...     rules.read(2 * u + 1, f"prefs:{u * 7}", client=u)
    >>> [str(learned.rule) for learned in rules.learned(min_confidence=0.5, min_support=8)]
    ['session:{a} -> prefs:{a}']
    >>> next(iter(rules.learned(min_confidence=0.5, min_support=8))).rule.key(("999",))
    'prefs:999'
    """

    def __init__(
        self,
        *,
        delay: int = 0,
        window: int = 4,
        templates: int = 16,
        horizon: int = 4_096,
        max_clients: int = 4_096,
        half_life: int = 200_000,
    ) -> None:
        self.delay = delay
        self.window = window
        self.templates = templates
        self.horizon = horizon
        self.max_clients = max_clients
        self.half_life = half_life
        self.max_rules = 8_192
        self._clients: OrderedDict[int, OrderedDict[str, deque[_Read]]] = OrderedDict()
        self._reads: dict[str, float] = {}
        self._counts: dict[Rule, _Count] = {}
        self._until_halving = half_life

    def read(
        self,
        i: int,
        key: str,
        *,
        client: int = 0,
        value: Scalars | None = None,
        parsed: Parsed | None = None,
    ) -> None:
        """One read, in the order of ``i``.

        Args:
            i: when: its index in the whole stream, or a time.
            value: the scalar fields of the value it gave, where the caller looked.
            parsed: the key's template and arguments, where the caller knows them.
        """
        parsed = parsed or by_shape(key)
        if parsed is None:
            return
        recent = self._recent(client)
        for reads in recent.values():
            for earlier in reads:
                if i - earlier.i <= self.horizon and earlier.parsed != parsed:
                    self._credit(earlier, parsed, i=i)
        self._remember(recent, _Read(i, parsed, value))
        self._reads[parsed.template] = self._reads.get(parsed.template, 0.0) + 1.0
        self._until_halving -= 1
        if self._until_halving <= 0:
            self._fade()
        if len(self._counts) > self.max_rules:
            self._prune()

    def learned(self, *, min_confidence: float, min_support: float) -> Iterable[Learned]:
        """The rules that hold, best first by their confidence on time."""
        found = []
        for rule, count in self._counts.items():
            reads = max(self._reads.get(rule.first, 0.0), count.all)
            if count.all >= min_support and count.on_time >= min_confidence * reads:
                found.append(
                    Learned(rule, count.all / reads, count.on_time / reads, count.all, count.lead / count.all)
                )
        return sorted(found, key=lambda one: (-one.on_time, str(one.rule)))

    def _recent(self, client: int) -> OrderedDict[str, deque[_Read]]:
        recent = self._clients.get(client)
        if recent is None:
            recent = self._clients[client] = OrderedDict()
            if len(self._clients) > self.max_clients:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(client)
        return recent

    def _remember(self, recent: OrderedDict[str, deque[_Read]], read: _Read) -> None:
        template = read.parsed.template
        reads = recent.get(template)
        if reads is None:
            reads = recent[template] = deque(maxlen=self.window)
            if len(recent) > self.templates:
                recent.popitem(last=False)
        else:
            recent.move_to_end(template)
        reads.append(read)

    def _credit(self, earlier: _Read, parsed: Parsed, *, i: int) -> None:
        slots = self._slots(earlier, parsed)
        if slots is None:
            return
        rule = Rule(earlier.parsed.template, parsed.template, slots)
        if rule in earlier.credited:
            return
        earlier.credited.add(rule)
        count = self._counts.get(rule)
        if count is None:
            count = self._counts[rule] = _Count()
        count.all += 1.0
        count.lead += i - earlier.i
        if i - earlier.i > self.delay:
            count.on_time += 1.0

    def _slots(self, earlier: _Read, parsed: Parsed) -> tuple[Slot, ...] | None:
        """How the later key's arguments follow from the earlier; None where none of them does."""
        found = [self._slot(earlier, text) for text in parsed.arguments]
        if all(slot.source == "same" for slot in found):
            return None
        return tuple(found)

    def _slot(self, earlier: _Read, text: str) -> Slot:
        arguments = earlier.parsed.arguments
        if text in arguments:
            return Slot("copy", arguments.index(text))
        if earlier.value is not None:
            for name, scalar in earlier.value.items():
                if scalar == text:
                    return Slot("value", text=name)
        if _NUMBER.fullmatch(text):
            number = int(text)
            for at, argument in enumerate(arguments):
                if _NUMBER.fullmatch(argument) and 0 < abs(number - int(argument)) <= STEPS:
                    return Slot("copy", at, number - int(argument))
        return Slot("same", text=text)

    def _fade(self) -> None:
        """Halve every count, and let go of what is next to nothing."""
        self._until_halving = self.half_life
        self._reads = {name: count / 2 for name, count in self._reads.items() if count > 1.0}
        self._counts = {
            rule: _Count(count.all / 2, count.on_time / 2, count.lead / 2)
            for rule, count in self._counts.items()
            if count.all > 1.0
        }

    def _prune(self) -> None:
        """Keep the stronger half of the rules. Most are chance, credited once; of those that have as much, the latest stay."""
        latest = list(self._counts.items())[::-1]
        latest.sort(key=lambda entry: -entry[1].all)
        self._counts = dict(latest[: self.max_rules // 2][::-1])
        kept = {rule.first for rule in self._counts}
        self._reads = {name: count for name, count in self._reads.items() if name in kept or count > 1.0}


def by_shape(key: str) -> Parsed | None:
    """A key's template by its look: between separators, what has a digit is an argument. None where nothing has.

    >>> by_shape("cart:7:2026-11")
    Parsed(template='cart:{}:{}-{}', arguments=('7', '2026', '11'))
    >>> by_shape("config") is None
    True
    """
    if "{" in key or len(key) > 256:
        return None
    pieces = _SEPARATORS.split(key)
    arguments = []
    for at in range(0, len(pieces), 2):
        if any(character.isdigit() for character in pieces[at]):
            arguments.append(pieces[at])
            pieces[at] = "{}"
    return Parsed("".join(pieces), tuple(arguments)) if arguments else None


def fill(template: str, arguments: Iterable[str]) -> str:
    """A template with its arguments.

    >>> fill("cart:{}:{}", ("7", "mon"))
    'cart:7:mon'
    """
    pieces = template.split("{}")
    made = [pieces[0]]
    for argument, piece in zip(arguments, pieces[1:], strict=True):
        made += [argument, piece]
    return "".join(made)


def compiled(learned: Iterable[Learned]) -> dict[str, tuple[Learned, ...]]:
    """Rules by their first template, best first: what a request's key is looked up in."""
    table: dict[str, list[Learned]] = {}
    for one in learned:
        table.setdefault(one.rule.first, []).append(one)
    return {template: tuple(rules) for template, rules in table.items()}
