"""The finders' word lists (`assets/words.toml`) and the little English that they need."""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib import resources


@lru_cache(maxsize=1)
def _lists() -> dict[str, frozenset[str]]:
    data = tomllib.loads((resources.files("puna.data") / "assets/words.toml").read_text(encoding="utf-8"))
    return {name: frozenset(words) for name, words in data.items()}


def is_generic(heading: str) -> bool:
    """Whether a heading says nothing by itself: "Examples", "Version 1.2", a date."""
    words = heading.casefold().strip(" .:")
    return words in _lists()["generic_headings"] or not re.search(r"[^\W\d]{3}", re.sub(r"\bversion\b", "", words))


def is_no_subject(words: str) -> bool:
    """Whether the subject of a sentence is missing or points elsewhere: "This", "The following"."""
    words = words.casefold()
    return not words or words in _lists()["no_subjects"] or words.split()[0] in _lists()["no_subjects"]


def is_no_key(words: str) -> bool:
    """Whether a colon after these words makes a remark or a piece of code, and no pair of key and value."""
    return words.split()[0].casefold() in _lists()["no_keys"]


def is_verb(word: str) -> bool:
    return word.casefold() in _lists()["verbs"]


def number_words(name: str) -> dict[str, str]:
    """The verbs that agree with a name, for the slots {be} and {do}."""
    head = re.split(r" (?:in|of|for|to|with|by|from|per|on) ", name)[0]  # "size in bits" is one size
    plural = bool(re.search(r"[^siu'\W]s$", head)) and not head.isupper()
    return {"be": "are", "do": "do"} if plural else {"be": "is", "do": "does"}


def third_person(verb: str) -> str:
    """ "copy" to "copies", "match" to "matches", "return" to "returns"."""
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ies"
    return verb + ("es" if re.search(r"(?:s|x|z|ch|sh|o)$", verb) else "s")


_SECOND_VERB = re.compile(r"(?<=\band )[a-z]+(?= (?:the|an?|its?|them|this|all)\b)")  # "clear and reload the menu"


@lru_cache(maxsize=1)
def _inflected() -> frozenset[str]:
    return frozenset(third_person(verb) for verb in _lists()["verbs"])


def as_deed(sentence: str) -> str:
    """ "Return the size." as "returns the size", to go on from "which function"; "" where no verb opens it."""
    verb, _, rest = sentence.rstrip(".").partition(" ")
    word = verb.casefold()
    if not rest or not verb.isalpha():
        return ""
    if word in _lists()["verbs"]:
        rest = _SECOND_VERB.sub(lambda m: third_person(m[0]) if is_verb(m[0]) else m[0], rest)
        return f"{third_person(word)} {rest}"
    return f"{word} {rest}" if word in _inflected() else ""
