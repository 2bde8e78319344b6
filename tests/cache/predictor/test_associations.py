"""Which keys follow which: what is said, what is not, what is kept in bounds."""

from __future__ import annotations

from predis.cache.predictor.associations import Associations

SECOND = 1_000_000


def _visits(
    heard: Associations, pair: tuple[str, str], *, times: int, gap_us: int, needed: bool = True
) -> None:
    for visit in range(times):
        at = visit * 100 * SECOND
        heard.read(pair[0], at, client=1, needed=needed)
        heard.read(pair[1], at + gap_us, client=1, needed=needed)


def test_what_always_follows_in_time_is_said() -> None:
    heard = Associations(delay_us=1_000)
    _visits(heard, ("nav", "banner"), times=6, gap_us=5_000)
    assert heard.learned() == {"nav": ("banner",)}


def test_not_what_comes_before_a_load_would_have() -> None:
    heard = Associations(delay_us=10_000)
    _visits(heard, ("nav", "banner"), times=6, gap_us=5_000)
    assert heard.learned() == {}


def test_not_what_comes_long_after() -> None:
    heard = Associations(delay_us=1_000, horizon_us=SECOND)
    _visits(heard, ("nav", "banner"), times=6, gap_us=2 * SECOND)
    assert heard.learned() == {}


def test_not_what_is_there_anyway_unless_the_tables_in_use_brought_it() -> None:
    heard = Associations(delay_us=1_000)
    _visits(heard, ("nav", "banner"), times=6, gap_us=5_000, needed=False)
    assert heard.learned() == {}
    heard.foretold = {"banner"}
    _visits(heard, ("nav", "banner"), times=12, gap_us=5_000, needed=False)
    assert heard.learned() == {"nav": ("banner",)}


def test_not_what_another_client_reads() -> None:
    heard = Associations(delay_us=1_000)
    for visit in range(6):
        heard.read("nav", visit * 100 * SECOND, client=1, needed=True)
        heard.read("banner", visit * 100 * SECOND + 5_000, client=2, needed=True)
    assert heard.learned() == {}


def test_not_what_follows_seldom() -> None:
    heard = Associations(delay_us=1_000)
    for visit in range(24):
        heard.read("nav", visit * 100 * SECOND, client=1, needed=True)
        if visit % 3 == 0:
            heard.read("banner", visit * 100 * SECOND + 5_000, client=1, needed=True)
    assert heard.learned() == {}


def test_a_flood_of_keys_is_bounded() -> None:
    heard = Associations(delay_us=1_000, sources=100, clients=10)
    for i in range(20_000):
        heard.read(f"key:{i}", i * 10, client=i % 1_000, needed=True)
    assert len(heard) == 100
    assert len(heard._streams) == 10


def test_a_client_that_reads_much_within_one_load_is_bounded() -> None:
    heard = Associations(delay_us=SECOND)
    for i in range(10_000):
        heard.read(f"key:{i}", i, client=1, needed=True)
    assert len(heard._streams[1].young) < 5_000
