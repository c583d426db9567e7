from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.base.card import CARD, FORMAT, Card, version
from puna.base.errors import ArtifactError, VersionError

values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.integers())
cards = st.builds(
    Card,
    kind=st.text(min_size=1),
    inputs=st.dictionaries(st.text(), st.text(), max_size=3),
    config=st.dictionaries(st.text(), values, max_size=3),
    metrics=st.dictionaries(st.text(), values, max_size=3),
    fingerprint=st.text(),
    content=st.text(),
    puna=st.text(min_size=1),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("card")


@settings(max_examples=20, deadline=None)
@given(card=cards)
def test_a_card_survives_its_file(folder: Path, card: Card) -> None:
    card.write(folder)
    assert Card.read(folder) == card


def test_a_card_names_the_version_that_wrote_it(tmp_path: Path) -> None:
    Card("tokens").write(tmp_path)
    assert Card.read(tmp_path).puna == version()
    assert Card.read(tmp_path).format == FORMAT


def change(folder: Path, **changes: Any) -> None:
    data = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**data, **changes}))


def test_another_major_format_is_refused_with_the_version_to_use(tmp_path: Path) -> None:
    Card("tokens", puna="9.1").write(tmp_path)
    change(tmp_path, format="2.0")
    with pytest.raises(VersionError, match=r"format 2.0(.|\n)*puna 9.1"):
        Card.read(tmp_path)


def test_another_minor_format_is_read_and_unknown_keys_are_left_aside(tmp_path: Path) -> None:
    Card("tokens").write(tmp_path)
    change(tmp_path, format="1.9", later="x")
    assert Card.read(tmp_path).kind == "tokens"


@pytest.mark.parametrize("content", ["[]", "5", "null", "{}", '{"format": "1.0"}', '{"kind": 3, "format": "1.0"}', "{"])
def test_what_is_no_card_is_an_artifact_error(tmp_path: Path, content: str) -> None:
    (tmp_path / CARD).write_text(content)
    with pytest.raises(ArtifactError, match=CARD):
        Card.read(tmp_path)


def test_a_folder_without_a_card_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="There is no file"):
        Card.read(tmp_path)
