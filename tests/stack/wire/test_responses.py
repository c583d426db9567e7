from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.wire.responses import Compact, CreateResponse


def test_fields_that_nobody_knows_are_read_over() -> None:
    body = CreateResponse.model_validate({"model": "tiny", "input": "hello", "brand_new": 1})
    assert body.input == "hello"
    assert not hasattr(body, "brand_new")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_output_tokens", 15),
        ("max_tool_calls", 0),
        ("temperature", 2.1),
        ("top_p", -0.1),
        ("top_logprobs", 21),
        ("truncation", "sometimes"),
        ("metadata", {"key": "v" * 513}),
        ("metadata", {str(i): "" for i in range(17)}),
        ("tools", "none"),
    ],
)
def test_values_out_of_range_are_refused_by_their_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        CreateResponse.model_validate({field: value})
    assert caught.value.errors()[0]["loc"][0] == field


def test_nothing_is_required() -> None:
    assert Compact.model_validate({}).model is None


def test_the_document_says_what_input_may_be() -> None:
    kinds = CreateResponse.model_json_schema()["properties"]["input"]["anyOf"]
    assert [kind["type"] for kind in kinds] == ["string", "array", "null"]


def test_halves_of_surrogate_pairs_are_mended_wherever_they_stand() -> None:
    body = CreateResponse.model_validate({"input": [{"content": "a\ud800"}], "metadata": {"k\udfff": "v"}})
    assert body.input == [{"content": "a\ufffd"}]
    assert body.metadata == {"k\ufffd": "v"}
