"""Bodies of prompts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.wire.prompts import DefaultVersion, PromptBody, PromptUpdate


def test_a_prompt_has_text_and_a_version_is_at_least_one() -> None:
    assert PromptBody(prompt="x").variables == []
    assert PromptUpdate(prompt="x", version=1).set_as_default
    for broken in ({"prompt": ""}, {"prompt": None}):
        with pytest.raises(ValidationError):
            PromptBody.model_validate(broken)
    with pytest.raises(ValidationError):
        DefaultVersion(version=0)
