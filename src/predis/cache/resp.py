"""The Redis protocol, as much of it as a gateway needs: where commands and replies begin and end.

``Requests`` cuts a client's bytes into commands, ``Replies`` finds the ends of a server's replies without decoding them. Both take the
bytes in whatever pieces they come and give the same whatever the pieces are (a property test holds them to it).

Memory is bounded by what was really received, never by what a length promises: a header that announces 512 MB costs nothing until its
bytes are there, and they need not stay. A command that is long in coming may be let go as it comes (``Requests.let_go``); of a reply
``Replies`` keeps nothing but a line that is not whole yet.

``Replies`` has no stack. A reply is over when no value is wanted any more: at its start one is; an array of n is one and wants n more, a
map 2n, and an attribute wants 2n without being one. So nesting, however deep, costs one integer.

Limits and the words of errors are Valkey's (networking.c), so that a client that breaks the protocol reads the same through the gateway.
Protocol: https://valkey.io/topics/protocol/
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_ARGUMENTS = (1 << 31) - 1  # of one command, as in Valkey
MAX_BULK = 512 << 20  # Valkey's default proto-max-bulk-len
MAX_LINE = 64 << 10  # an inline command, and a line that says a length
# What somebody may send who has not shown a key yet, as in Valkey.
STRANGER_ARGUMENTS, STRANGER_BULK = 10, 16_384
_MAX_REPLY_LINE = 1 << 20  # a simple string, an error, a big number

OK = b"+OK\r\n"
# A reply that says there is nothing: null of RESP2 and RESP3, and empty array, map and set.
NULLS = frozenset((b"$-1\r\n", b"*-1\r\n", b"_\r\n"))
EMPTY = NULLS | {b"*0\r\n", b"%0\r\n", b"~0\r\n", b"$0\r\n\r\n"}

Command = tuple[list[bytes], bytes]  # its arguments, and its bytes as they came

# int() of a slice costs twice as much as a look into a dictionary, and takes what Valkey does not (" 5", "+5", "1_0").
_LENGTHS = {b"%d" % number: number for number in range(10_000)}
# The lines that begin commands and arguments, for bytes that are read at once.
_AT_ONCE = 16 << 10  # bytes, at most
_LINES = {b"*%d" % number: 1 + 2 * number for number in range(1, 1_000)}  # of a command that begins so
_HEADERS = {b"$%d" % number: number for number in range(10_000)}
# In an inline command: what is skipped between arguments, and what ends one.
_BETWEEN, _ENDS = b" \t\n\r\v\f", b" \t\n\r"
_ESCAPES = {110: 10, 114: 13, 116: 9, 98: 8, 97: 7}  # n r t b a


class ProtocolBroken(Exception):
    """The bytes are not the protocol. ``text`` is what Valkey says of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    @property
    def reply(self) -> bytes:
        """The RESP error with which the connection ends."""
        return error(f"ERR Protocol error: {self.text}")


class Requests:
    """Cuts what a client sends into commands.

    ``broken`` is set once bytes came that cannot be read; nothing after them is.
    """

    __slots__ = (
        "_args",
        "_at",
        "_behind",
        "_data",
        "_held",
        "_missing",
        "_open",
        "_parts",
        "_passing",
        "_scan",
        "_wanted",
        "broken",
        "stranger",
    )

    def __init__(self) -> None:
        self.stranger = False  # whether the limits are those of somebody who has not shown a key
        self.broken: ProtocolBroken | None = None
        self._behind: list[bytes] = []  # bytes of the command being read that are not looked at again
        self._data = b""
        self._at = 0  # where in it that command begins, or goes on
        self._scan = 0  # how far that has been read
        self._open = False  # whether its count of arguments is known
        self._wanted = 0  # how many of them are still to come
        self._args: list[bytes] = []  # those that have
        self._missing = 0  # bytes without which it is not worth looking again
        self._parts: list[bytes] = []  # those of them that have come
        self._held = 0  # bytes in ``_behind`` and ``_parts``
        self._passing = False  # it was let go

    @property
    def unfinished(self) -> bool:
        """Whether anything but whole commands came."""
        return bool(self._data) or self._open or self.broken is not None

    @property
    def held(self) -> int:
        """Bytes kept of a command that has not come whole yet."""
        return len(self._data) - self._at + self._held

    @property
    def head(self) -> list[bytes]:
        """The arguments that have come of it."""
        return self._args

    @property
    def passing(self) -> bool:
        """Whether what comes next is the rest of a command that was let go, for ``rest`` to cut off."""
        return self._passing

    def feed(self, data: bytes) -> list[Command]:
        """The commands that are whole with these bytes."""
        if self.broken is not None:
            return []
        if self._missing > len(data):
            self._missing -= len(data)
            self._parts.append(data)
            self._held += len(data)
            return []
        if self._data:
            self._held -= sum(map(len, self._parts))
            data = b"".join((self._data[self._at :], *self._parts, data))
            self._parts.clear()
            self._scan -= self._at
        elif data.endswith(b"\r\n") and len(data) <= _AT_ONCE and not (self._open or self.stranger):
            whole = _at_once(data)
            if whole is not None:
                return whole
        self._data, self._at, self._missing = data, 0, 0
        found: list[Command] = []
        try:
            while (end := self._command()) >= 0:
                if self._args:  # an empty line, and an array of none, are no commands
                    found.append((self._args, self._raw(end)))
                    self._args = []
                self._at = self._scan = end
        except ProtocolBroken as broken:
            self.broken = broken
            self._behind.clear()
        if self._at == len(self._data) or self.broken:
            self._data, self._at, self._scan = b"", 0, 0
        elif self._at < self._scan:  # so that a command in many pieces is not copied with each of them
            self._behind.append(self._data[self._at : self._scan])
            self._held += self._scan - self._at
            self._data, self._at, self._scan = self._data[self._scan :], 0, 0
        return found

    def _raw(self, end: int) -> bytes:
        """The bytes of the command that ends there."""
        raw = self._data[self._at : end]
        if self._behind:
            raw = b"".join((*self._behind, raw))
            self._behind.clear()
            self._held = 0
        return raw

    def let_go(self) -> bytes:
        """The bytes so far of the command that is being read; the rest is to be had from ``rest`` as it comes."""
        taken = b"".join((*self._behind, self._data[self._at :], *self._parts))
        # From here on ``_data`` is the beginning of a line that is not whole yet, and ``_missing`` what is left of a bulk.
        self._data = b"" if self._missing else self._data[self._scan :]
        self._behind.clear()
        self._parts.clear()
        self._held = 0
        self._args = []
        self._at = self._scan = 0
        self._passing = True
        return taken

    def rest(self, data: bytes) -> int:
        """How many of these bytes belong to the command that was let go."""
        before = len(self._data)
        if before:
            data, self._data = self._data + data, b""
        at, size = 0, len(data)
        try:
            while self._wanted:
                if self._missing > size - at:
                    self._missing -= size - at
                    return size - before
                if self._missing:
                    at += self._missing
                    self._missing = 0
                    self._wanted -= 1
                    continue
                line = data.find(b"\r", at)
                if line < 0 or line + 1 >= size:
                    self._data = data[at:]
                    _check_line(size - at, "too big bulk count string")
                    return size - before
                self._missing = self._bulk(data, at, end=line) + 2
                at = line + 2
        except ProtocolBroken as broken:
            self.broken = broken
        self._passing = self._open = False
        return at - before

    def _command(self) -> int:
        """Read on: where the command ends, or -1 where more bytes are needed."""
        data, scan, size = self._data, self._scan, len(self._data)
        if not self._open:
            if scan >= size:
                return -1
            if data[scan] != 42:  # *
                return self._inline()
            line = data.find(b"\r", scan)
            if line < 0 or line + 1 >= size:
                _check_line(size - scan, "too big mbulk count string")
                return -1
            self._wanted = self._count(data[scan + 1 : line])
            if data[line + 1] != 10:
                raise ProtocolBroken("invalid CRLF in request")
            self._open = True
            scan = line + 2
        args, wanted, lengths = self._args, self._wanted, _LENGTHS
        while wanted:
            line = data.find(b"\r", scan)
            if line < 0 or line + 1 >= size:
                _check_line(size - scan, "too big bulk count string")
                break
            length = lengths.get(data[scan + 1 : line])
            if length is None or data[scan] != 36:
                length = self._bulk(data, scan, end=line)
            start = line + 2
            end = start + length
            if end + 2 > size:
                self._missing = end + 2 - size
                break
            args.append(data[start:end])
            scan = end + 2
            wanted -= 1
        self._wanted = wanted
        if wanted:
            # Of a bulk that is not whole the header is read again: what is missing is counted from its start.
            self._scan = scan
            return -1
        self._open = False
        return scan

    def _count(self, text: bytes) -> int:
        count = _integer(text)
        if count is None or count > MAX_ARGUMENTS:
            raise ProtocolBroken("invalid multibulk length")
        if self.stranger and count > STRANGER_ARGUMENTS:
            raise ProtocolBroken("unauthenticated multibulk length")
        return max(count, 0)

    def _bulk(self, data: bytes, start: int, *, end: int) -> int:
        """The length that a bulk's header says."""
        if data[start : start + 1] != b"$":
            raise ProtocolBroken(f"expected '$', got '{chr(data[start]) if start < len(data) else ''}'")
        length = _integer(data[start + 1 : end])
        if length is None or not 0 <= length <= MAX_BULK:
            raise ProtocolBroken("invalid bulk length")
        if self.stranger and length > STRANGER_BULK:
            raise ProtocolBroken("unauthenticated bulk length")
        return length

    def _inline(self) -> int:
        line = self._data.find(b"\n", self._scan)
        if line < 0:
            _check_line(len(self._data) - self._scan, "too big inline request")
            return -1
        self._args = split_inline(self._data[self._scan : line].removesuffix(b"\r"))
        return line + 1


def _at_once(data: bytes) -> list[Command] | None:
    """The commands in bytes that are small whole commands and nothing else; None where they are not, or hold a line end.

    The same as reading on byte by byte, in a third of the time: where as many lines as announced follow and each is as long as the
    one before it says, the ends of lines are the ends of arguments.
    """
    lines = data.split(b"\r\n")
    lines.pop()
    size = len(lines)
    found: list[Command] = []
    first = begin = 0
    while first < size:
        last = first + _LINES.get(lines[first], size + 1)
        args = lines[first + 2 : last : 2]
        if last > size or [_HEADERS.get(line) for line in lines[first + 1 : last : 2]] != [*map(len, args)]:
            return None
        if not first and last == size:
            return [(args, data)]
        end = begin + sum(map(len, lines[first:last])) + 2 * (last - first)
        found.append((args, data[begin:end]))
        first, begin = last, end
    return found


class Replies:
    """Finds the ends of what a server sends."""

    __slots__ = ("_line", "_push", "_skip", "_todo", "pushes")

    def __init__(self) -> None:
        self.pushes = 0  # among the ends that ``feed`` gave last
        self._todo = 0  # values still wanted by the reply that is being read; 0: between two
        self._push = False  # whether it is a push, which answers no command
        self._skip = 0  # bytes of a bulk that are still to come, its line end included
        self._line = b""  # a line that is not whole yet

    @property
    def in_push(self) -> bool:
        """Whether what is being read is a push."""
        return self._push and self._todo > 0

    def feed(self, data: bytes) -> list[int]:  # noqa: PLR0912 - one loop, unrolled: every reply passes here
        """Where in these bytes replies end, in order; of a push, the complement (``~end``), which is negative.

        Raises:
            ProtocolBroken: they are no replies.
        """
        pushes = self.pushes = 0
        at, size = 0, len(data)
        if size and not (self._todo or self._line) and _is_one(data, size):
            return [size]
        ends: list[int] = []
        before = 0  # bytes put in front that came earlier
        todo, push, lengths = self._todo, self._push, _LENGTHS
        if self._skip:
            if self._skip > size:
                self._skip -= size
                return ends
            at, self._skip = self._skip, 0
            todo -= 1
            if not todo:
                ends.append(~at if push else at)
                pushes += push
        elif self._line:
            before = len(self._line)
            data, size, self._line = self._line + data, size + before, b""
        while at < size:
            kind = data[at]
            if not todo:
                todo, push = 1, kind == 62
            line = data.find(b"\n", at)
            if line < 0:
                self._line = data[at:]
                if size - at > _MAX_REPLY_LINE:
                    raise ProtocolBroken("too long a line in a reply")
                break
            if kind == 36 or kind == 61 or kind == 33:  # $ = !: so many bytes  # noqa: PLR1714 - a third faster than a set
                length = lengths.get(data[at + 1 : line - 1])
                if length is None:
                    length = _length(data[at + 1 : line - 1])
                at = line + 1
                if length >= 0:
                    at += length + 2
                    if at > size:
                        self._skip = at - size
                        break
                todo -= 1
            elif kind in _ONE_LINE:
                at = line + 1
                todo -= 1
            else:
                todo += _aggregate(kind, data[at + 1 : line - 1])
                at = line + 1
            if not todo:
                ends.append(~(at - before) if push else at - before)
                pushes += push
        self._todo, self._push, self.pushes = todo, push, pushes
        return ends


def _is_one(data: bytes, size: int) -> bool:
    """Whether these bytes are seen at once to be one reply, which a lone command has."""
    if not data.startswith(b"$"):
        return data.find(b"\n") == size - 1 and data[0] in _ONE_LINE
    line = data.find(b"\r", 1, 8)
    return line > 0 and _LENGTHS.get(data[1:line], size) == size - line - 4


_ONE_LINE = frozenset(b"+-:_,#(")
# How many values an element of an aggregate is, and whether the aggregate is a value itself.
_AGGREGATES = {ord("*"): (1, 1), ord("~"): (1, 1), ord(">"): (1, 1), ord("%"): (2, 1), ord("|"): (2, 0)}


def _aggregate(kind: int, text: bytes) -> int:
    """By how much an aggregate changes the number of values that are wanted."""
    shape = _AGGREGATES.get(kind)
    if shape is None:
        raise ProtocolBroken(f"a reply begins with {chr(kind)!r}")
    return max(_length(text), 0) * shape[0] - shape[1]


def _length(text: bytes) -> int:
    length = _integer(text)
    if length is None:  # "?" too: no server streams aggregates to us
        raise ProtocolBroken(f"a reply has the length {text[:32]!r}")
    return length


def _integer(text: bytes) -> int | None:
    """A number as Valkey writes and reads it: no sign but -, no leading zero."""
    digits = text.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 19 or (digits[0] == 48 and text != b"0"):
        return None
    return int(text)


def _check_line(size: int, text: str) -> None:
    if size > MAX_LINE:
        raise ProtocolBroken(text)


def split_inline(line: bytes) -> list[bytes]:
    """The arguments of an inline command: words, of which parts may be 'quoted' or "quoted with \\n and \\x00" (sds.c, sdssplitargs).

    Raises:
        ProtocolBroken: a quote is not closed.
    """
    if not any(byte in line for byte in b"\"'\v\f"):
        return line.split()
    args: list[bytes] = []
    at, size = 0, len(line)
    while True:
        while at < size and line[at] in _BETWEEN:
            at += 1
        if at >= size:
            return args
        word, at = _word(line, at)
        args.append(word)


def _word(line: bytes, at: int) -> tuple[bytes, int]:
    """One argument and where it ends."""
    word, quote, size = bytearray(), 0, len(line)
    while at < size:
        byte = line[at]
        if quote and byte == 92 and (quote == 34 or line[at + 1 : at + 2] == b"'"):
            escaped, at = _escaped(line, at) if quote == 34 else (b"'", at + 2)
            word += escaped
            continue
        if byte == quote:
            quote = 0
        elif quote:
            word.append(byte)
        elif byte in _ENDS:
            return bytes(word), at
        elif byte in (34, 39):
            quote = byte
        else:
            word.append(byte)
        at += 1
    if quote:
        raise ProtocolBroken("unbalanced quotes in request")
    return bytes(word), at


def _escaped(line: bytes, at: int) -> tuple[bytes, int]:
    """What a backslash in double quotes stands for, and where it ends."""
    code = line[at + 1 : at + 4]
    if len(code) == 3 and code[:1] == b"x":
        try:
            return bytes.fromhex(code[1:].decode("ascii")), at + 4
        except ValueError:
            pass
    if not code:
        raise ProtocolBroken("unbalanced quotes in request")
    return bytes((_ESCAPES.get(code[0], code[0]),)), at + 2


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def error(text: str) -> bytes:
    """An error; its first word is its code."""
    return b"-" + " ".join(text.split()).encode() + b"\r\n"


def command(*arguments: bytes) -> bytes:
    """A command, as a client sends it."""
    return b"*%d\r\n" % len(arguments) + b"".join(map(bulk, arguments))


def array(values: Iterable[bytes], *, kind: bytes = b"*") -> bytes:
    """An array of replies that are encoded already; ``kind`` ``>`` makes it a push."""
    items = list(values)
    return b"%b%d\r\n" % (kind, len(items)) + b"".join(items)


def null(protocol: int) -> bytes:
    """What a GET answers where there is nothing."""
    return b"_\r\n" if protocol == 3 else b"$-1\r\n"


def items(reply: bytes) -> list[bytes]:
    """The elements of an array, each as it is encoded.

    Raises:
        ProtocolBroken: it is no whole array.
    """
    line = reply.find(b"\r\n") + 2
    if reply[:1] not in (b"*", b"~", b">") or line < 2:
        raise ProtocolBroken("an array was expected")
    ends = Replies().feed(reply[line:])
    starts = [0, *ends[:-1]]
    return [reply[line + start : line + end] for start, end in zip(starts, ends, strict=True)]
