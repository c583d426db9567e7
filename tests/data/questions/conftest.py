"""What a finder finds in a text, as tuples that a test can compare."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from puna.core.document import Document
from puna.data.questions.fact import Fact, Finder


@pytest.fixture
def found() -> Callable[..., list[tuple[str, dict[str, str], str]]]:
    """(finder, text, kind) to (kind of the fact, slots without the module, answer), checked for its offsets."""

    def look(find: Finder, text: str, kind: str = "python", source: str = "lib.py", **meta: object):
        document = Document(text, "id", source, meta={"kind": kind, **meta})
        facts: list[Fact] = list(find(document))
        for fact in facts:
            assert 0 <= fact.scope[0] <= fact.start < fact.end <= len(text)
            assert fact.scope[1] >= fact.end
            answer = text[fact.start : fact.end]
            assert answer == answer.strip() and "\n" not in answer and 2 <= len(answer) <= 200
        plain = [{slot: words for slot, words in fact.names.items() if slot != "module"} for fact in facts]
        return [(fact.kind, names, text[fact.start : fact.end]) for fact, names in zip(facts, plain, strict=True)]

    return look
