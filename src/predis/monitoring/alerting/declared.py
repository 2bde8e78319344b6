"""Routes that ``predis.toml`` declares, so that they are kept, reviewed and rolled out with the rest of an installation's configuration.

[alerts.routes.page]
channel = "pagerduty"
routing_key = "file:pagerduty"     # fields of the channel; secrets by where they are found
severity = "critical"              # and what it is told of: endpoint, kinds, severity, after_s, per_hour
tenant = "default"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from predis.access.keys import DEFAULT_TENANT
from predis.errors import InvalidInput, InvalidSetting
from predis.monitoring.alerting.book import AlertRoute, Declared

_ROUTES = "routes"
_TYPES: Mapping[str, tuple[type, ...]] = {
    "channel": (str,),
    "endpoint": (str,),
    "kinds": (list,),
    "severity": (str,),
    "after_s": (int, float),
    "per_hour": (int,),
    "tenant": (str,),
}
_WORDS: Mapping[type, str] = {str: "a text", list: "a list of texts", int: "a number"}


def declared_routes(found: Any, *, source: str) -> list[Declared]:
    """The routes in what stands under ``[alerts]``, checked, each with its tenant. ``source``: where that is, for messages.

    Raises:
        InvalidSetting: one of them cannot be used; the message names the route and the part.
    """
    routes = found.get(_ROUTES, {}) if isinstance(found, Mapping) else None
    if not isinstance(routes, Mapping) or not set(found) <= {_ROUTES}:
        raise InvalidSetting(f"{source} holds routes and nothing else, as in [alerts.{_ROUTES}.NAME]")
    return [_route(name, given, where=f"{source}.{_ROUTES}.{name}") for name, given in routes.items()]


def _route(name: str, given: Any, *, where: str) -> Declared:
    if not isinstance(given, Mapping) or "channel" not in given:
        raise InvalidSetting(f"{where} must be a table with a channel")
    for key, types in _TYPES.items():
        if key in given and not _fits(given[key], types):
            raise InvalidSetting(f"{where}.{key} must be {_WORDS[types[0]]}")
    own = {key: value for key, value in given.items() if key in _TYPES and key != "tenant"}
    config = {key: value for key, value in given.items() if key not in _TYPES}
    route = AlertRoute(name=name, config=config, **{**own, "kinds": tuple(own.get("kinds", ()))})
    try:
        route.check()
    except InvalidInput as error:
        raise InvalidSetting(f"{where}: {error.message}") from None
    return given.get("tenant", DEFAULT_TENANT), route


def _fits(value: Any, types: tuple[type, ...]) -> bool:
    return type(value) in types and (type(value) is not list or all(isinstance(one, str) for one in value))
