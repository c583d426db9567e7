"""What a request itself says of its route: OpenRouter's `provider` object, which clients know how to send.

    {"only": ["lambda"], "ignore": [], "order": ["local"], "allow_fallbacks": true, "require_parameters": true,
     "data_collection": "deny", "zdr": true, "quantizations": ["bf16"], "sort": "price",
     "max_price": {"prompt": 1, "completion": 3}, "preferred_max_latency": 2, "preferred_min_throughput": 20}

Puna's own words in it are `local`, `precision` (at least), `regions`, `max_cost` and `no_doubt`. Wishes tighten what
the route demands and never loosen it. "preferred" figures are limits here, not preferences: what is asked for is kept
or refused. `require_parameters` is always so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from puna.base.config import from_dict
from puna.base.errors import ConfigError, near
from puna.stack.errors import invalid
from puna.stack.routing.config import Limits, Strategy

_SORTS = {"price": "cheapest", "latency": "fastest", "throughput": "fastest"}
# OpenRouter's word -> ours, where they mean the same.
_SAME = {
    "only": "only",
    "ignore": "ignore",
    "quantizations": "precisions",
    "preferred_max_latency": "max_latency",
    "preferred_min_throughput": "min_throughput",
}
_OWN = ("local", "precision", "regions", "max_cost", "no_doubt")
_OTHER = ("order", "allow_fallbacks", "require_parameters", "data_collection", "zdr", "sort", "max_price")


@dataclass(frozen=True, slots=True)
class Wishes:
    """A request's own part of the policy.

    Attributes:
        limits: further limits.
        order: patterns of those that come first.
        strategy: in place of the route's.
        fallbacks: False asks nobody after the first.
    """

    limits: Limits = field(default_factory=Limits)
    order: tuple[str, ...] = ()
    strategy: Strategy | None = None
    fallbacks: bool = True


def read_wishes(data: Mapping[str, Any] | None) -> Wishes:
    """Reads the object.

    Raises:
        ApiError: 400 for an unknown word or a wrong value; a limit that is misspelt must not be read over.
    """
    if not data:
        return Wishes()
    if not isinstance(data, Mapping):
        raise invalid(f"provider is {data!r}; it must be an object.", "provider")
    known = (*_SAME, *_OWN, *_OTHER)
    for word in data:
        if word not in known:
            raise invalid(f"provider.{word} is not known. {near(str(word), known)}", f"provider.{word}")
    limits: dict[str, Any] = {own: data[word] for word, own in _SAME.items() if data.get(word) is not None}
    limits |= {word: data[word] for word in _OWN if data.get(word) is not None}
    limits["no_retention"] = bool(data.get("zdr", False))
    limits["no_training"] = _denied(data.get("data_collection", "allow"))
    for word, own in (("prompt", "max_input_price"), ("completion", "max_output_price")):
        price = data.get("max_price") or {}
        if not isinstance(price, Mapping):
            raise invalid(f"provider.max_price is {price!r}; it must be an object.", "provider.max_price")
        if price.get(word) is not None:
            limits[own] = _number(price[word], f"provider.max_price.{word}")
    try:
        checked = from_dict(Limits, limits, "provider")
    except ConfigError as error:
        raise invalid(f"{error.message} {error.hint}".strip(), "provider") from error
    return Wishes(
        checked, _patterns(data.get("order")), _strategy(data.get("sort")), bool(data.get("allow_fallbacks", True))
    )


def _denied(value: Any) -> bool:
    if value not in ("allow", "deny"):
        raise invalid(
            f"provider.data_collection is {value!r}; it must be 'allow' or 'deny'.", "provider.data_collection"
        )
    return value == "deny"


def _number(value: Any, at: str) -> float:
    """OpenRouter's prices may be texts."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise invalid(f"{at} is {value!r}; it must be a number.", at) from None


def _patterns(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise invalid(f"provider.order is {value!r}; it must be a list of names.", "provider.order")
    return tuple(value)


def _strategy(value: Any) -> Strategy | None:
    if isinstance(value, Mapping):
        value = value.get("by")
    if value is None:
        return None
    found = _SORTS.get(value, value) if isinstance(value, str) else value
    if found not in get_args(Strategy):
        words = ", ".join((*_SORTS, *get_args(Strategy)))
        raise invalid(f"provider.sort is {value!r}; it must be one of {words}.", "provider.sort")
    return cast(Strategy, found)
