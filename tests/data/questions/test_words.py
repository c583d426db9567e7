"""The little English that the finders need."""

from __future__ import annotations

import pytest

from puna.data.questions.words import (
    as_deed,
    is_generic,
    is_no_key,
    is_no_subject,
    is_verb,
    number_words,
    third_person,
)


@pytest.mark.parametrize(
    ("verb", "form"),
    [
        ("return", "returns"),
        ("copy", "copies"),
        ("match", "matches"),
        ("play", "plays"),
        ("fix", "fixes"),
        ("do", "does"),
    ],
)
def test_third_person(verb: str, form: str):
    assert third_person(verb) == form


@pytest.mark.parametrize(
    ("sentence", "deed"),
    [
        ("Return the size.", "returns the size"),
        ("Returns the size.", "returns the size"),
        ("Copies a file to b.", "copies a file to b"),
        ("Clear and reload the menu.", "clears and reloads the menu"),
        ("Find search and replace dialogs.", "finds search and replace dialogs"),
        ("Class of things.", ""),
        ("Return.", ""),
        ("os.path things.", ""),
    ],
)
def test_deeds(sentence: str, deed: str):
    assert as_deed(sentence) == deed


def test_headings_that_say_nothing_alone():
    assert all(map(is_generic, ["Examples", "NOTES:", "1.2.3", "Version 2.0", "2023-01-05"]))
    assert not any(map(is_generic, ["Installing on Linux", "Text encoding"]))


def test_subjects_that_point_elsewhere():
    assert all(map(is_no_subject, ["This", "following", "each shard", "", "It"]))
    assert not any(map(is_no_subject, ["shard", "Text encoding"]))


def test_keys_and_verbs():
    assert is_no_key("Note") and not is_no_key("License")
    assert is_verb("Copy") and not is_verb("banana")


def test_agreement():
    assert number_words("Packages")["be"] == "are"
    assert {number_words(name)["be"] for name in ("class", "bus", "basis", "HTTPS", "shard", "size in bits")} == {"is"}
