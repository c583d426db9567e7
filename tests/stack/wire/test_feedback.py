from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from puna.stack.wire.feedback import FeedbackRequest, Pair, Rating

PROMPT = [{"role": "user", "content": "?"}]
ADAPTER: TypeAdapter[Any] = TypeAdapter(FeedbackRequest)


def test_the_kind_says_what_a_body_is():
    rating = ADAPTER.validate_python({"kind": "rating", "prompt": PROMPT, "answer": {}, "rating": -1, "new": 1})
    assert isinstance(rating, Rating)
    assert rating.consent is False
    pair = ADAPTER.validate_python({"kind": "pair", "prompt": PROMPT, "chosen": {}, "rejected": {}})
    assert isinstance(pair, Pair)
    assert pair.source == "other"


@pytest.mark.parametrize("rating", [0, 2, "up", None])
def test_a_thumb_is_up_or_down(rating: Any):
    with pytest.raises(ValidationError):
        ADAPTER.validate_python({"kind": "rating", "prompt": PROMPT, "answer": {}, "rating": rating})
