"""Documents for tests, made in one call."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from puna.core.document import Document


@pytest.fixture
def document() -> Callable[..., Document]:
    """(text, kind, source) to a document whose id is its source."""

    def make(text: str, kind: str = "python", source: str = "lib.py", **meta: object) -> Document:
        return Document(text=text, id=source, source=source, meta={"kind": kind, **meta})

    return make
