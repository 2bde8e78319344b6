from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from predis.errors import InvalidInput
from predis.serving.route import Route, Segment, Split
from predis.serving.store import Endpoint, ServingStore, Worker
from predis.state import Database

E = Endpoint("default", "e", "m", 0, {"a": [1]}, 5)


@pytest.fixture
def store(database: Database) -> ServingStore:
    found = ServingStore(database)
    with database.write() as connection:
        assert found.add_endpoint(connection, E)
    return found


def put(
    store: ServingStore, weights: dict[int, float], *, endpoint: Endpoint = E, reason: str = "why"
) -> Route:
    with store._database.write() as connection:
        return store.put_route(connection, endpoint, route=Split(weights), reason=reason, at=9, actor="ada")


class TestEndpoints:
    def test_as_they_were_added(self, store: ServingStore) -> None:
        assert store.endpoint("default", "e") == E
        assert store.endpoint("other", "e") is None
        assert store.endpoint("default", "f") is None

    def test_added_once(self, store: ServingStore, database: Database) -> None:
        with database.write() as connection:
            assert not store.add_endpoint(connection, Endpoint("default", "e", "other", 7, {}, 6))
            assert store.add_endpoint(connection, Endpoint("other", "e", "m", 0, {}, 6))
        assert store.endpoint("default", "e") == E
        assert [(e.tenant, e.name) for e in store.endpoints()] == [("default", "e"), ("other", "e")]

    def test_config(self, store: ServingStore, database: Database) -> None:
        with database.write() as connection:
            assert store.config_now(connection, E) == {"a": [1]}
            store.set_config(connection, E, config={"b": None})
            assert store.config_now(connection, E) == {"b": None}
        found = store.endpoint("default", "e")
        assert found is not None
        assert found.config == {"b": None}


class TestRoutes:
    def test_are_numbered_and_pointed_at(self, store: ServingStore) -> None:
        first, second = put(store, {1: 1.0}), put(store, {1: 0.9, 2: 0.1}, reason="canary")
        assert [first.number, second.number] == [1, 2]
        found = store.endpoint("default", "e")
        assert found is not None
        assert found.route == 2
        assert store.route("default", "e", number=1) == first == Route("e", 1, {1: 1.0}, "why", 9)
        assert store.route("default", "e", number=2) == second

    def test_the_order_of_the_versions_is_kept(self, store: ServingStore) -> None:
        """A database's JSON object would not keep it, and the order decides which keys a canary takes."""
        put(store, {10: 0.25, 9: 0.5, 2: 0.25, 1: 0.0})
        found = store.route("default", "e", number=1).weights
        assert list(found.items()) == [(10, 0.25), (9, 0.5), (2, 0.25), (1, 0.0)]

    def test_segments_shadows_and_salt_are_kept_too(self, store: ServingStore, database: Database) -> None:
        segments = (Segment("key == 'ä'", {3: 0.25, 1: 0.75}), Segment("tenant == 'x'", {2: 1.0, 1: 0.0}))
        split = Split({10: 0.5, 9: 0.5}, segments, {8: 0.1, 4: 1.0}, "rollout 7")
        with database.write() as connection:
            made = store.put_route(connection, E, route=split, reason="why", at=9, actor="ada")
        found = store.route("default", "e", number=1)
        assert made == found
        assert found.split == split
        assert [list(s.weights) for s in found.segments] == [[3, 1], [2, 1]]
        assert list(found.shadows) == [8, 4]

    def test_number_zero_is_the_empty_one(self, store: ServingStore) -> None:
        assert store.route("default", "e", number=0) == Route("e", 0, {})

    def test_bad_weights_leave_everything_as_it_was(self, store: ServingStore) -> None:
        with pytest.raises(InvalidInput):
            put(store, {1: 0.5})
        assert put(store, {1: 1.0}).number == 1

    def test_a_transaction_that_fails_makes_no_route(self, store: ServingStore, database: Database) -> None:
        with pytest.raises(RuntimeError), database.write() as connection:
            store.put_route(connection, E, route=Split({1: 1.0}), reason="", at=0, actor="")
            raise RuntimeError
        found = store.endpoint("default", "e")
        assert found is not None
        assert found.route == 0
        with pytest.raises(sa.exc.NoResultFound):
            store.route("default", "e", number=1)

    def test_at_the_same_time_every_one_has_its_own_number(self, store: ServingStore) -> None:
        with ThreadPoolExecutor(6) as pool:
            made = list(pool.map(lambda n: put(store, {n: 1.0}), range(1, 25)))
        assert sorted(route.number for route in made) == list(range(1, 25))
        for route in made:
            assert store.route("default", "e", number=route.number).weights == route.weights
        found = store.endpoint("default", "e")
        assert found is not None
        assert found.route == 24

    def test_endpoints_count_for_themselves(self, store: ServingStore, database: Database) -> None:
        other = Endpoint("other", "e", "m", 0, {}, 6)
        with database.write() as connection:
            store.add_endpoint(connection, other)
        put(store, {1: 1.0})
        assert put(store, {2: 1.0}, endpoint=other).number == 1
        assert store.route("other", "e", number=1).weights == {2: 1.0}
        assert store.route("default", "e", number=1).weights == {1: 1.0}


class TestWorkers:
    def test_say_what_they_do_and_leave(self, store: ServingStore) -> None:
        first = Worker("serving-0", 10, 1, 2, {"default/e": 3}, {})
        second = Worker("serving-1", 11, 1, 2, {}, {"default/e": {"route": 3, "code": "x", "message": "y"}})
        for worker in (second, first):
            store.beat(worker)
        assert store.workers() == [first, second]
        later = Worker("serving-0", 12, 5, 6, {}, {})
        store.beat(later)
        store.leave("serving-1")
        store.leave("serving-1")
        assert store.workers() == [later]
