"""IFEval's 25 verifiable instructions (arXiv 2311.07911), judged strictly and loosely.

An instruction has an id and keyword arguments, as the public file has them. Strict judges the answer as it stands;
loose judges it also without asterisks and without its first or last line, and takes the best. An empty answer follows
nothing. Where this differs from the published code: a keyword is a text, not a pattern; sentences and words are split
without trained models; and a language is told by `languages`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from puna.base.errors import InputError, near
from puna.evals.languages import language_of

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]

CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|e\.g|i\.e|No|Inc|Ltd|Co|[A-Z])\.$")
_SENTENCE_END = re.compile(r"""[.!?…]+["'”’)\]]*(?=\s|$)|[。！？]+""")
_FENCE = re.compile(r"\A```(?:json)?(.*?)(?:```)?\Z", re.DOTALL | re.IGNORECASE)


def followed(id: str, arguments: Arguments, answer: str, prompt: str = "") -> bool:
    """Whether an answer follows an instruction as it stands.

    Args:
        id: such as "keywords:existence".
        arguments: of the instruction.
        answer: what the model said.
        prompt: the question, for instructions that compare with it.

    Raises:
        InputError: an unknown instruction, or one without an argument that it needs.
    """
    if id not in CHECKS:
        raise InputError(f"There is no instruction {id!r}.", hint=near(id, CHECKS))
    if not answer.strip():
        return False
    try:
        return CHECKS[id](answer, {"prompt_to_repeat": prompt, **arguments})
    except KeyError as error:
        raise InputError(f"The instruction {id} needs the argument {error}; it has {dict(arguments)!r}.") from error


def followed_loosely(id: str, arguments: Arguments, answer: str, prompt: str = "") -> bool:
    """Whether an answer follows an instruction when what surrounds or marks up the answer proper is taken off."""
    lines = answer.split("\n")
    cuts = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return any(followed(id, arguments, text, prompt) for cut in cuts for text in (cut, cut.replace("*", "")))


def words_in(text: str) -> list[str]:
    """Runs of letters, digits and underscores."""
    return re.findall(r"\w+", text)


def sentences_in(text: str) -> int:
    """How many sentences a text has: ends of sentences that are no abbreviations', and text after the last."""
    ends = [match for match in _SENTENCE_END.finditer(text) if not _ABBREVIATION.search(text[: match.end()])]
    rest = text[ends[-1].end() :] if ends else text
    return len(ends) + bool(re.search(r"\w", rest))


def _related(count: int, arguments: Arguments, threshold: str, relation: str = "relation") -> bool:
    wanted = arguments.get(relation, "at least")
    if wanted not in ("at least", "less than"):
        raise InputError(f"{relation} is {wanted!r}; it must be 'at least' or 'less than'.")
    return count >= arguments[threshold] if wanted == "at least" else count < arguments[threshold]


def _occurrences(text: str, word: str) -> int:
    return len(re.findall(re.escape(word.strip()), text, re.IGNORECASE))


def _existence(text: str, arguments: Arguments) -> bool:
    return all(_occurrences(text, word) for word in arguments["keywords"])


def _frequency(text: str, arguments: Arguments) -> bool:
    return _related(_occurrences(text, arguments["keyword"]), arguments, "frequency")


def _forbidden(text: str, arguments: Arguments) -> bool:
    words = arguments["forbidden_words"]
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in words)


def _letter_frequency(text: str, arguments: Arguments) -> bool:
    count = text.lower().count(arguments["letter"].lower())
    return _related(count, arguments, "let_frequency", "let_relation")


def _paragraphs(text: str, arguments: Arguments) -> bool:
    """Paragraphs stand between "***"; an empty one may stand at either end alone."""
    parts = [bool(part.strip()) for part in re.split(r"\s?\*{3}\s?", text)]
    return all(parts[1:-1]) and sum(parts) == arguments["num_paragraphs"]


def _nth_paragraph(text: str, arguments: Arguments) -> bool:
    """Paragraphs stand between empty lines; the n-th, counted from 1, opens with a word."""
    parts = [part.strip() for part in text.split("\n\n")]
    count, place = sum(map(bool, parts)), arguments["nth_paragraph"]
    if count != arguments["num_paragraphs"] or place > count or not parts[place - 1]:
        return False
    word = parts[place - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word)[0].lower() == arguments["first_word"].lower()


def _postscript(text: str, arguments: Arguments) -> bool:
    marker: str = arguments["postscript_marker"]
    known: dict[str, str] = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    pattern = known[marker] if marker in known else re.escape(marker.lower())
    return bool(re.search(pattern, text.lower()))


def _bullets(text: str, arguments: Arguments) -> bool:
    """A bullet is a line that opens with one asterisk, or with a dash."""
    return len(re.findall(r"^\s*(?:\*[^*]|-).*$", text, re.MULTILINE)) == arguments["num_bullets"]


def _highlights(text: str, arguments: Arguments) -> bool:
    single = [part for part in re.findall(r"\*([^\n*]*)\*", text) if part.strip()]
    double = [part for part in re.findall(r"\*\*([^\n*]*)\*\*", text) if part.strip()]
    return len(single) + len(double) >= arguments["num_highlights"]


def _sections(text: str, arguments: Arguments) -> bool:
    splitter = re.escape(arguments["section_spliter"].strip())
    return len(re.findall(rf"{splitter}\s?\d+", text)) >= arguments["num_sections"]


def _json(text: str, arguments: Arguments) -> bool:
    del arguments
    match = _FENCE.match(text.strip())
    try:
        json.loads(match[1] if match else text)
    except ValueError:
        return False
    return True


def _title(text: str, arguments: Arguments) -> bool:
    del arguments
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text))


def _two_responses(text: str, arguments: Arguments) -> bool:
    del arguments
    parts = [part.strip() for part in text.split("******")]
    answers = [part for part in parts if part]
    return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]


def _repeats(text: str, arguments: Arguments) -> bool:
    return text.strip().lower().startswith(arguments["prompt_to_repeat"].strip().lower())


def _ends(text: str, arguments: Arguments) -> bool:
    return text.strip().strip('"').lower().endswith(arguments["end_phrase"].strip().lower())


def _capital_words(text: str, arguments: Arguments) -> bool:
    count = sum(word.isupper() for word in re.findall(r"\w+(?:[-'.]\w+)*", text))
    return _related(count, arguments, "capital_frequency", "capital_relation")


def _quoted(text: str, arguments: Arguments) -> bool:
    del arguments
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _speaks(text: str, arguments: Arguments) -> bool:
    """Whether a text is in the language. One without letters is in none; words that nothing tells are no proof."""
    return language_of(text) == arguments["language"] or not any(sign.isalpha() for sign in text)


def _is_english(text: str) -> bool:
    """Whether it is, or nothing says that it is not."""
    return language_of(text) in ("en", None)


CHECKS: dict[str, Check] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _speaks,
    "length_constraints:number_sentences": lambda text, a: _related(sentences_in(text), a, "num_sentences"),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda text, a: _related(len(words_in(text)), a, "num_words"),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda text, a: (
        len(re.findall(r"\[.*?\]", text)) >= a["num_placeholders"]
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda text, a: any(one in text for one in CONSTRAINED),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeats,
    "startend:end_checker": _ends,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda text, a: text.isupper() and _is_english(text),
    "change_case:english_lowercase": lambda text, a: text.islower() and _is_english(text),
    "punctuation:no_comma": lambda text, a: "," not in text,
}
