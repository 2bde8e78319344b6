from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from predis.errors import ModelFailure
from predis.registry.model import Version
from predis.serving.loading import Loader, VersionKey
from predis.serving.served import ServedVersion
from tests.serving.helpers import served, version


class Shelf:
    """Opens versions when it is let."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.broken: set[int] = set()
        self.opened: list[tuple[str, int]] = []
        self.most = self.at_once = 0
        self._lock = threading.Lock()

    def __call__(self, version: Version, endpoint: str) -> ServedVersion:
        with self._lock:
            self.opened.append((endpoint, version.number))
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        assert self.open.wait(30)
        with self._lock:
            self.at_once -= 1
        if version.number in self.broken:
            raise ModelFailure("bad")
        return served(version.number, endpoint=endpoint)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    yield shelf
    shelf.open.set()


@pytest.fixture
def loader(shelf: Shelf) -> Loader:
    return Loader(shelf)


def key(number: int, endpoint: str = "e") -> VersionKey:
    return ("default", endpoint, number)


def test_getting_begins_and_later_hands_over(loader: Loader, shelf: Shelf) -> None:
    shelf.open.clear()
    for _time in range(3):
        assert loader.get(key(1), version(1)) is None
    shelf.open.set()
    loader.wait(30)
    found = loader.get(key(1), version(1))
    assert found is not None
    assert (found.number, shelf.opened) == (1, [("e", 1)])
    assert loader.get(key(1), version(1)) is None  # it was handed over; asked for again, it is loaded again
    loader.wait(30)
    assert shelf.opened == [("e", 1)] * 2


def test_what_failed_is_raised_once_and_tried_again(loader: Loader, shelf: Shelf) -> None:
    shelf.broken.add(1)
    assert loader.get(key(1), version(1)) is None
    loader.wait(30)
    with pytest.raises(ModelFailure, match="bad"):
        loader.get(key(1), version(1))
    shelf.broken.clear()
    assert loader.get(key(1), version(1)) is None
    loader.wait(30)
    assert loader.get(key(1), version(1)) is not None


def test_a_few_at_once(loader: Loader, shelf: Shelf) -> None:
    shelf.open.clear()
    for number in range(10):
        loader.get(key(number), version(number))
    shelf.open.set()
    loader.wait(30)
    assert len(shelf.opened) == 10
    assert shelf.most <= 4


def test_waiting_ends_when_the_time_is_over(loader: Loader, shelf: Shelf) -> None:
    shelf.open.clear()
    loader.get(key(1), version(1))
    loader.wait(0)
    assert loader.wait_for_new(0)
    assert loader.get(key(1), version(1)) is None
    assert not loader.wait_for_new(0)  # it is not new any more


def test_what_nobody_wants_any_more_is_given_away(loader: Loader, shelf: Shelf) -> None:
    shelf.broken.add(3)
    for number in (1, 2, 3):
        loader.get(key(number), version(number))
    loader.wait(30)
    unwanted = loader.unwanted({key(1)})
    assert {found: made.number for found, made in unwanted.items()} == {key(2): 2}
    assert loader.unwanted({key(1)}) == {}
    assert loader.get(key(1), version(1)) is not None


def test_what_is_being_loaded_is_not_given_away_before_it_is_there(loader: Loader, shelf: Shelf) -> None:
    shelf.open.clear()
    loader.get(key(1), version(1))
    assert loader.unwanted(()) == {}
    shelf.open.set()
    loader.wait(30)
    assert set(loader.unwanted(())) == {key(1)}


def test_closing(loader: Loader, shelf: Shelf) -> None:
    assert loader.close()
    shelf.open.clear()
    for number in range(6):
        loader.get(key(number), version(number))
    assert not loader.close()
    shelf.open.set()
    while not loader.close():
        pass
    assert len(shelf.opened) <= 4  # those that had not begun were forgotten
