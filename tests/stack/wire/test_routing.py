"""The body of an explanation."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.wire.routing import ExplainRequest


def test_defaults_and_unknown_fields() -> None:
    body = ExplainRequest.model_validate({"prompt_tokens": 5, "unknown": True})
    assert (body.route, body.max_tokens, body.cached_tokens, body.needs) == ("auto", 512, 0, [])


@pytest.mark.parametrize("bad", [{"max_tokens": 0}, {"prompt_tokens": -1}, {"n": 0}, {"needs": "tools"}])
def test_sizes_that_make_no_sense_are_refused(bad: dict) -> None:
    with pytest.raises(ValidationError):
        ExplainRequest.model_validate(bad)
