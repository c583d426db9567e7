from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.verdict import Price, Score, Task, Verdict

numbers = st.floats(allow_nan=False, allow_infinity=False)
nouns = st.one_of(
    st.builds(
        Verdict,
        allowed=st.booleans(),
        hazards=st.lists(st.text()).map(tuple),
        scores=st.dictionaries(st.text(), numbers),
        reason=st.text(),
    ),
    st.builds(Task, id=st.text(), prompt=st.text(), answer=st.text(), kind=st.text()),
    st.builds(Score, name=st.text(), value=numbers, count=st.integers(0), low=numbers, high=numbers),
    st.builds(Price, input=numbers, output=numbers, cached_input=numbers),
)


@given(nouns)
def test_judgements_survive_json(noun: Any) -> None:
    data = json.loads(json.dumps(asdict(noun)))
    if isinstance(noun, Verdict):
        data["hazards"] = tuple(data["hazards"])
    assert type(noun)(**data) == noun


@pytest.mark.parametrize("noun", [Verdict(True), Task("1", "question", "answer"), Score("loss", 1, 1, 0, 2), Price()])
def test_judgements_cannot_be_changed(noun: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(noun, noun.__slots__[0], None)
