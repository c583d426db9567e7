"""Settings of a route: read strictly from TOML, with limits that make sense."""

from __future__ import annotations

import tomllib

import pytest

from puna.base.config import from_dict
from puna.base.errors import ConfigError
from puna.stack.routing.config import DEFAULT_ROUTES, RouteConfig, bits

TEXT = """
strategy = "weighted"
models = ["lambda/*", "local/*"]
budget_per_day = 5
limits = { precision = "fp8", no_training = true, max_output_price = 3 }
weights = { cost = 2.0 }
canaries = { every = 600 }
[[endpoints]]
provider = "local"
per_hour = 2.1
decode_per_second = 90
"""


def test_a_table_of_stack_toml_is_a_route() -> None:
    config = from_dict(RouteConfig, tomllib.loads(TEXT))
    assert config.limits.precision == "fp8"
    assert config.endpoints[0].model == "*"
    assert config.budget_per_day == 5.0
    assert config.canaries.every == 600


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "cheap"}, "must be one of"),
        ({"limits": {"precison": "fp8"}}, "precison"),
        ({"limits": {"precision": "half"}}, "precision is 'half'"),
        ({"limits": {"max_cost": -1}}, "max_cost"),
        ({"hedge": 1.0}, "hedge"),
        ({"budget_per_day": -1}, "budget_per_day"),
        ({"retries": -1}, "retries"),
        ({"first_token_timeout": 0}, "above 0 seconds"),
        ({"endpoints": [{"provider": "a", "input": 1.0}]}, "go together"),
        (
            {"endpoints": [{"provider": "a", "input": 1.0, "output": 1.0, "per_hour": 1.0}]},
            "by the hour or by the token",
        ),
        ({"endpoints": [{"provider": "a", "per_hour": 1.0, "decode_per_second": 0}]}, "decode_per_second"),
        ({"canaries": {"right": 0.5, "degraded": 0.6}}, "degraded < right"),
        ({"canaries": {"miss": 0.7}}, "miss"),
        ({"weights": {"cost": -1.0}}, "weights.cost"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(RouteConfig, settings)


def test_precisions_are_compared_by_their_bits() -> None:
    assert [bits(name) for name in ("bf16", "fp8", "int4", "nvfp4", "Q4_K_M", "awq", "")] == [16, 8, 4, 4, 4, 0, 0]


def test_the_default_private_route_stays_on_this_machine() -> None:
    assert DEFAULT_ROUTES["private"].limits.local
