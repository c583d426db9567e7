"""The language of a text, for IFEval's language instructions: by script, and by common short words within a script.

It knows the languages of `assets/languages.toml`, which hold those that IFEval asks for; a text in another is given the
nearest or none. Short texts without any common word have no known language. It is deterministic, which the detector of
the reference implementation is not unless it is seeded.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path

from puna.base.config import read_toml

_WORD = re.compile(r"[^\W\d_]+(?:[\u0300-\u036f\u064b-\u065f\u0900-\u0903\u093a-\u094f\u200c]+[^\W\d_]*)*")
_KANA, _HAN = (0x3040, 0x30FF), (0x4E00, 0x9FFF)


@cache
def _tables() -> tuple[dict[str, frozenset[str]], dict[str, tuple[int, int]]]:
    data = read_toml(Path(__file__).parent / "assets" / "languages.toml")
    words = {code: frozenset(text.split()) for code, text in data["words"].items()}
    return words, {code: (first, last) for code, (first, last) in data["scripts"].items()}


def language_of(text: str) -> str | None:
    """The ISO 639-1 code; None where nothing tells."""
    words, scripts = _tables()
    letters = Counter(_block(ord(sign), scripts) for sign in text if sign.isalpha())
    if not letters:
        return None
    if letters["kana"] and letters["kana"] >= 0.1 * (letters["kana"] + letters["zh"]) > 0.1 * letters[""]:
        return "ja"
    block, _ = letters.most_common(1)[0]
    if block:
        return "ja" if block == "kana" else block
    # Composed: Vietnamese is written either way.
    found = _WORD.findall(unicodedata.normalize("NFC", text).lower())
    hits = {code: sum(word in known for word in found) for code, known in words.items()}
    best = max(hits, key=lambda code: hits[code])
    return best if hits[best] else None


def _block(point: int, scripts: dict[str, tuple[int, int]]) -> str:
    """The language or script to which a letter alone leads; "" for scripts that several languages share."""
    if point < 0x0370:
        return ""
    if _KANA[0] <= point <= _KANA[1]:
        return "kana"
    if _HAN[0] <= point <= _HAN[1]:
        return "zh"
    return next((code for code, (first, last) in scripts.items() if first <= point <= last), "")
