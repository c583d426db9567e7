"""Who has a tokenizer at hand."""

from __future__ import annotations

import pytest

from puna.stack.errors import ApiError
from puna.stack.operation.limits import Limits
from puna.stack.operation.metering import MeteredProvider
from puna.stack.operation.metrics import Metrics
from puna.stack.providers.engine import EngineProvider
from puna.stack.providers.vocabulary import vocabulary_of
from puna.stack.testing import ScriptedProvider


def test_the_engine_has_one_also_behind_a_meter() -> None:
    engine = EngineProvider("local", {})
    assert vocabulary_of(engine, "x") is engine
    metered = MeteredProvider(engine, Metrics(), Limits(0, 0))
    assert vocabulary_of(metered, "x") is metered


def test_who_has_none_is_named() -> None:
    with pytest.raises(ApiError, match=r"Counting needs .* 'scripted' \(inline::scripted\) has not") as caught:
        vocabulary_of(ScriptedProvider(), "Counting")
    assert caught.value.status == 501
