"""OpenRouter's `provider` object: read strictly, since a misspelt limit is no limit."""

from __future__ import annotations

import pytest

from puna.stack.errors import ApiError
from puna.stack.routing.config import Limits
from puna.stack.routing.wishes import Wishes, read_wishes


def test_all_words_are_understood() -> None:
    wishes = read_wishes(
        {
            "only": ["lambda"],
            "ignore": ["bad"],
            "order": ["local"],
            "allow_fallbacks": False,
            "require_parameters": True,
            "data_collection": "deny",
            "zdr": True,
            "quantizations": ["bf16", "fp8"],
            "sort": {"by": "throughput", "partition": "none"},
            "max_price": {"prompt": "1.5", "completion": 3},
            "preferred_max_latency": 2,
            "preferred_min_throughput": 20,
            "precision": "fp8",
            "local": True,
            "regions": ["eu"],
            "max_cost": 0.1,
            "no_doubt": True,
        }
    )
    assert wishes == Wishes(
        Limits(
            only=("lambda",),
            ignore=("bad",),
            precision="fp8",
            precisions=("bf16", "fp8"),
            local=True,
            no_training=True,
            no_retention=True,
            regions=("eu",),
            max_input_price=1.5,
            max_output_price=3.0,
            max_cost=0.1,
            max_latency=2.0,
            min_throughput=20.0,
            no_doubt=True,
        ),
        ("local",),
        "fastest",
        False,
    )


def test_nothing_is_wished_by_default() -> None:
    assert read_wishes(None) == read_wishes({}) == Wishes()
    assert read_wishes({"sort": "price"}).strategy == "cheapest"
    assert read_wishes({"sort": "private"}).strategy == "private"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"max_prize": {}}, "Did you mean 'max_price'"),
        ({"data_collection": "no"}, "'allow' or 'deny'"),
        ({"sort": "cheapness"}, "must be one of"),
        ({"sort": ["price"]}, "must be one of"),
        ({"max_price": 3}, "must be an object"),
        ({"max_price": {"prompt": "much"}}, "must be a number"),
        ({"order": "lambda"}, "list of names"),
        ({"only": "lambda"}, "a list"),
        ({"max_cost": "1"}, "a number"),
        ({"precision": "half"}, "half"),
        ([1], "must be an object"),
    ],
)
def test_what_is_not_understood_is_refused(data: dict, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        read_wishes(data)
    assert caught.value.status == 400
