"""Bodies of scoring."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.wire.scoring import ScoreBatchBody, ScoreBody, ScoringFunctionBody


def test_a_function_may_have_no_parameters_but_there_must_be_one() -> None:
    assert ScoreBody(input_rows=[], scoring_functions={"f": None}).scoring_functions == {"f": None}
    with pytest.raises(ValidationError):
        ScoreBody(input_rows=[], scoring_functions={})
    assert not ScoreBatchBody(dataset_id="d", scoring_functions={"f": {}}).save_results_dataset


def test_a_function_needs_only_a_name() -> None:
    assert ScoringFunctionBody(scoring_fn_id="f").params is None
