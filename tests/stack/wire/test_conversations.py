from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.wire.conversations import AddItems, CreateConversation, UpdateConversation


def test_twenty_items_at_once_are_the_most() -> None:
    assert len(AddItems.model_validate({"items": [{}] * 20}).items) == 20
    with pytest.raises(ValidationError):
        AddItems.model_validate({"items": [{}] * 21})
    with pytest.raises(ValidationError):
        AddItems.model_validate({"items": []})


def test_metadata_may_be_left_out_at_first_and_must_be_named_in_a_change() -> None:
    assert CreateConversation.model_validate({}).metadata is None
    assert UpdateConversation.model_validate({"metadata": None}).metadata is None
    with pytest.raises(ValidationError):
        UpdateConversation.model_validate({})
