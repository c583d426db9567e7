"""Bodies of datasets."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.wire.datasets import DatasetBody, Source


@pytest.mark.parametrize("source", [{}, {"uri": "x", "rows": []}, {"type": "rows"}, {"rows": [1]}])
def test_a_source_is_either_rows_or_a_uri(source: dict) -> None:
    with pytest.raises(ValidationError):
        Source.model_validate(source)


def test_the_type_of_a_source_may_be_left_out() -> None:
    assert Source.model_validate({"uri": "x"}).uri == "x"
    assert Source.model_validate({"rows": []}).rows == []
    with pytest.raises(ValidationError):
        DatasetBody.model_validate({"purpose": "fun", "source": {"uri": "x"}})
