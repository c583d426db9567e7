from __future__ import annotations

import re
from pathlib import Path

import pytest

from puna.evals.languages import language_of

UDHR = Path(__file__).parents[3] / "shared" / "data" / "udhr"
FILES = {
    "eng": "en", "spa": "es", "por_PT": "pt", "arb": "ar", "hin": "hi", "fra": "fr", "rus": "ru", "deu_1996": "de",
    "jpn": "ja", "ita": "it", "ben": "bn", "ukr": "uk", "tha": "th", "urd": "ur", "tam": "ta", "tel": "te",
    "bul": "bg", "kor": "ko", "pol": "pl", "heb": "he", "pes_1": "fa", "vie": "vi", "swh": "sw", "kan": "kn",
    "mar": "mr", "guj": "gu", "pan": "pa", "mal": "ml", "fin": "fi",
}  # fmt: skip


@pytest.mark.skipif(not UDHR.exists(), reason="shared/data/udhr is not there")
@pytest.mark.parametrize(("name", "code"), FILES.items())
def test_articles_of_the_declaration_of_human_rights_are_told_by_their_language(name: str, code: str) -> None:
    markup = (UDHR / f"{name}.html").read_text(encoding="utf-8")
    texts = [re.sub(r"<[^>]+>", "", part).strip() for part in re.findall(r"<p[^>]*>(.*?)</p>", markup, re.DOTALL)]
    found = [language_of(text) for text in texts if len(text) > 60]
    assert len(found) >= 20
    assert found.count(code) >= 0.9 * len(found), found


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", None),
        ("123 + 4!", None),
        ("Zzyzx qwrtp", None),
        ("The answer is in the house.", "en"),
        ("Das ist nicht die Antwort.", "de"),
        ("我不知道。", "zh"),
        ("東京へ行きます。", "ja"),
        ("Она сказала, что это не так.", "ru"),
        ("यो मेरो घर हो र म यहाँ छु, तर उनले भने छैन।", "ne"),
    ],
)
def test_short_texts(text: str, code: str | None) -> None:
    assert language_of(text) == code
