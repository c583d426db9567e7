"""Bodies of safety."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.wire.safety import ModerationBody, RunShieldBody, ShieldBody


def test_unknown_fields_are_read_over_and_missing_ones_have_defaults() -> None:
    body = ShieldBody.model_validate({"shield_id": "s", "invented_later": 1})
    assert (body.provider_id, body.params) == (None, None)
    assert not hasattr(body, "invented_later")


def test_inputs_of_all_forms() -> None:
    for given in ("text", ["a", "b"], [{"type": "text", "text": "a"}]):
        assert ModerationBody(input=given).input == given
    with pytest.raises(ValidationError):
        ModerationBody.model_validate({"input": 3})
    with pytest.raises(ValidationError):
        RunShieldBody.model_validate({"shield_id": "s", "messages": []})
