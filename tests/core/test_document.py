from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.document import Document, Span

documents = st.builds(
    Document,
    text=st.text(),
    id=st.text(min_size=1),
    source=st.text(),
    language=st.sampled_from(["", "en", "qu"]),
    scores=st.dictionaries(st.text(), st.floats(allow_nan=False)),
    meta=st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()),
)


@given(documents)
def test_a_document_survives_json(document: Document) -> None:
    assert Document(**json.loads(json.dumps(asdict(document)))) == document


@given(st.text(min_size=1), st.data())
def test_a_span_counts_characters_not_bytes(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    span = Span("a", start, end)
    assert len(Document(text, "a").text[span.start : span.end]) == end - start


def test_a_document_cannot_be_changed() -> None:
    document = Document("text", "a")
    with pytest.raises(FrozenInstanceError):
        document.text = "other"  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        document.unknown = 1  # type: ignore[attr-defined]


def test_documents_do_not_share_their_default_mappings() -> None:
    assert Document("a", "a").meta is not Document("b", "b").meta
