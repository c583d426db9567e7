"""What speaks for a candidate: how a question is put, what it names, and where in a passage the candidate stands.

A question becomes grams (its words, and pairs of them, with names left out) and names (what it is about). A candidate
becomes signs: short texts such as "role:value" or "owner:match", which say what it looks like and how its
surroundings meet the question's names. Which gram asks for which sign is learnt (`ranker`), not written here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import title
from puna.reader.candidates import Candidate, candidates, lines

_WORD = re.compile(r"\w+")
_TOKEN = re.compile(r"[\w.]*\w\(\)|-{1,2}\w[\w-]*|\w+(?:[.-]\w+)*|`[^`]+`|[^\w\s]")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_DEFINED = re.compile(r"\s*(?:async\s+)?(?:def|class)\s+(\w+)|#{1,6}\s+(.+)")
_POINTING = frozenset(("it", "its", "they", "them", "their", "that", "this", "these", "and", "there", "one"))
_IT = frozenset(("it", "its"))  # they stand for a name
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_MARKER = re.compile(r"\(?(\d{1,2})[.)]\s")
NAME = "<name>"
_LIFT = 12  # places by which a passage rises that defines what is asked about; more under the right class


@cache
def _plain_words() -> frozenset[str]:
    """Words that say how something is asked, and not what about."""
    return frozenset(resources.files("puna.reader").joinpath("assets/plain_words.txt").read_text("utf-8").split())


@dataclass(frozen=True, slots=True)
class Query:
    """A question, read once.

    Attributes:
        grams: its words and pairs of words; what it names is replaced by one mark.
        stems: of the words that say what it is about.
        names: the last parts of the names in it, lower case: "copyfile" of `shutil.copyfile()`.
        outer: the other parts of dotted names: "shutil".
        ordinal: of the step or point that it asks for; 0 for none.
    """

    grams: tuple[str, ...]
    stems: frozenset[str]
    names: frozenset[str]
    outer: frozenset[str] = frozenset()
    ordinal: int = 0


@lru_cache(maxsize=1024)
def read_question(question: str, earlier: str = "") -> Query:
    """Reads a question; where it points back ("What does it return?"), it is about what the one before it was about.

    Args:
        question: the user's words.
        earlier: the user's question before it.
    """
    tokens = _TOKEN.findall(question)
    shown = [_gram(token, i) for i, token in enumerate(tokens)]
    grams = dict.fromkeys(shown)
    grams |= dict.fromkeys(f"{a} {b}" for a, b in zip(["^", *shown], [*shown, "$"], strict=True))
    about = [token for token, gram in zip(tokens, shown, strict=True) if gram == NAME and token.lower() not in _IT]
    lower = {token.lower() for token in tokens}
    if earlier and (not about or lower & _POINTING):
        before = enumerate(_TOKEN.findall(earlier))
        about += [token for i, token in before if _gram(token, i) == NAME and token.lower() not in _IT]
    words = [word for token in about for word in _WORD.findall(token)]
    dotted = [[part.lower().strip("_") for part in _WORD.findall(token)] for token in about]
    names = frozenset(parts[-1] for parts in dotted if parts)
    outer = frozenset(part for parts in dotted for part in parts[:-1])
    ordinal = next((i + 1 for i, word in enumerate(_ORDINALS) if word in lower), 0)
    ordinal = ordinal or next((int(token) for token in tokens if token.isdigit() and len(token) < 3), 0)
    return Query(tuple(grams), stems(words), names, outer, ordinal)


def _gram(token: str, place: int) -> str:
    """A word of the question as it counts for its form; `NAME` for what it is about."""
    if not _WORD.search(token):
        return token
    if token.lower() in _IT:
        return NAME
    plain = token.islower() or (place == 0 and token[1:].islower()) or token == "I"
    return token.lower() if plain and token.lower() in _plain_words() else NAME


def stems(words: Sequence[str]) -> frozenset[str]:
    """Words without their endings, and the parts of names: "copyFiles" gives copyfile, copy and file."""
    found = set()
    for word in words:
        bare = word.strip("_")
        parts = [piece for part in bare.split("_") for piece in _PART.findall(part)]
        for piece in (bare, *(parts if len(parts) > 1 else ())):
            stem = _stem(piece.lower())
            if len(stem) > 1 and stem not in _plain_words():
                found.add(stem)
    return frozenset(found)


def _stem(word: str) -> str:
    for ending in ("ies", "ied", "ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + ("y" if ending in ("ies", "ied") else "")
    return word


# A passage by itself --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a passage: its stems, who it belongs to, and how deep it stands."""

    stems: frozenset[str]
    owners: tuple[str, ...]
    first: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A passage, read once.

    Attributes:
        found: its candidates.
        signs: of each candidate, those that no question changes.
        lines: of its text.
        words: of each candidate, the stems in it.
        names: what its title names, from the outside in, lower case.
        stems: of its title.
        text: all its words, lower case.
    """

    found: tuple[Candidate, ...]
    signs: tuple[tuple[str, ...], ...]
    lines: tuple[_Line, ...]
    words: tuple[frozenset[str], ...]
    names: tuple[str, ...]
    stems: frozenset[str]
    text: frozenset[str]


@lru_cache(maxsize=256)
def look(passage: Passage) -> Seen:
    text = passage.text
    found = candidates(text)
    spans = lines(text)
    headings = tuple(_name(part) for part in passage.heading.split(" > ") if part)
    module = _module(passage.source)
    rows = _lines(text, spans, headings)
    return Seen(
        found,
        tuple(tuple(_own_signs(text, spans, candidate, rows)) for candidate in found),
        rows,
        tuple(stems(_WORD.findall(text[c.start : c.end])) for c in found),
        (module, *headings),
        stems(_WORD.findall(title(passage))),
        frozenset(word.lower().strip("_") for word in _WORD.findall(f"{title(passage)} {text}")),
    )


@lru_cache(maxsize=4096)
def _opened(passage: Passage) -> tuple[frozenset[str], frozenset[str]]:
    """The names whose definitions or sections begin in a passage, and those that it stands under."""
    found = (_DEFINED.match(line) for line in passage.text.split("\n"))
    names = {_name(match[1] or match[2]) for match in found if match}
    module = _module(passage.source)
    headings = [_name(part) for part in passage.heading.split(" > ") if part]
    return frozenset(names), frozenset((module, *headings[:-1]))


def arrange(query: Query, passages: Sequence[Passage], count: int) -> list[Passage]:
    """The best of the passages that a look-up found: those that define what the question names come up.

    A long definition is cut into passages with one title; a search by words likes the shortest of them best, and
    what a question asks for mostly stands in the first.
    """

    def place(item: tuple[int, Passage]) -> int:
        rank, passage = item
        names, under = _opened(passage)
        opens_file = passage.start == 0 and _module(passage.source) in query.names
        return rank - _LIFT * max(bool(names & query.names) * (1 + bool(under & query.outer)), 4 * opens_file)

    return [passage for _, passage in sorted(enumerate(passages), key=place)][:count]


def _module(source: str) -> str:
    return re.sub(r"\.\w+$", "", source).removesuffix("/__init__").rsplit("/", 1)[-1].lower().strip("_")


def _name(heading: str) -> str:
    """What a heading names: "def copyfile" is copyfile."""
    return re.sub(r"^(?:def|class)\s+", "", heading).strip().lower().strip("_")


def _lines(text: str, spans: Sequence[tuple[int, int]], headings: tuple[str, ...]) -> tuple[_Line, ...]:
    """Each line with the definitions and headings above it that it stands under."""
    rows = []
    scope: list[tuple[int, str]] = []
    for start, end in spans:
        begin = text.rfind("\n", 0, start) + 1
        depth = start - begin
        line = text[start:end]
        if line:
            while scope and depth <= scope[-1][0]:
                scope.pop()
            if defined := _DEFINED.match(text, begin, end):
                level = depth if defined[1] else -1
                scope = [(d, n) for d, n in scope if d < level] if defined[1] else []
                scope.append((level, _name(defined[1] or defined[2])))
        owners = tuple(name for _, name in scope) or headings[-1:]
        rows.append(_Line(stems(_WORD.findall(line)), owners, _kind(line)))
    return tuple(rows)


_KINDS = re.compile(
    r"(?:async )?(def|class|return|raise|import|from|if|for|while|try|with)\b|([@#|>]|[-*+]\s|\d+[.)]|\"\"\"|''')"
    r"|[rR](\"\"\")|(:\w+)|(\w[\w.\[\]]*\s*=)|([A-Z][\w ]*:)"
)


def _kind(line: str) -> str:
    """How a line opens: a word of a program, a mark, "=" for an assignment, or whether it is prose."""
    found = _KINDS.match(line)
    if not line or not found:
        return "prose" if line[:1].isalpha() else line[:1]
    if found[5] or found[6]:
        return "=" if found[5] else "Key:"
    opening = found[found.lastindex or 0]
    return "1." if opening[0].isdigit() else opening.strip()


def _own_signs(
    text: str, spans: Sequence[tuple[int, int]], candidate: Candidate, rows: Sequence[_Line]
) -> Iterator[str]:
    inner = text[candidate.start : candidate.end]
    left = text[max(0, candidate.start - 40) : candidate.start].rstrip(" ")
    right = text[candidate.end : candidate.end + 4].lstrip(" ")
    for role in candidate.roles:
        yield f"role:{role}"
    yield f"roles:{'+'.join(sorted(candidate.roles))}"
    before = re.search(r"(\w+|\W{1,3})$", left)
    yield f"left:{(before[1][-12:] if before else '^')}"
    yield f"right:{right[:1] or '$'}"
    kind = rows[candidate.line].first
    above = next((rows[i].first for i in range(candidate.line - 1, -1, -1) if spans[i][0] < spans[i][1]), "^")
    yield f"line:{kind}"
    yield f"above:{above}>{kind}"
    yield f"role:{candidate.roles[0]} line:{kind}"
    yield f"role:{candidate.roles[0]} above:{above}"
    blank = candidate.line == 0 or spans[candidate.line - 1][0] == spans[candidate.line - 1][1]
    yield f"blank above:{blank}"
    count = len(inner.split())
    yield f"words:{min(count, 3) if count < 4 else 4 if count < 9 else 9 if count < 20 else 20}"
    yield f"ends:{'.' if inner[-1] in '.!?' else 'a' if inner[-1].isalnum() else inner[-1]}"
    first = inner[0]
    yield f"starts:{'A' if first.isupper() else 'a' if first.isalpha() else '0' if first.isdigit() else first}"
    yield f"form:{_form(inner)}"
    yield f"role:{candidate.roles[0]} form:{_form(inner)}"
    if candidate.start == spans[candidate.line][0]:
        yield "opens its line"


def _form(inner: str) -> str:
    if re.fullmatch(r"[A-Z]\w*(?:Error|Exception|Warning)|[\w.]+\.[A-Z]\w*(?:Error|Exception|Warning)", inner):
        return "error"
    if re.fullmatch(r"\w+", inner):
        return "Name" if inner[0].isupper() else "number" if inner.isdigit() else "name"
    if re.fullmatch(r"[\w.]+", inner):
        return "dotted"
    if re.match(r"Returns?\b", inner):
        return "Returns"
    if "," in inner and not re.search(r"\w \w", inner):
        return "list"
    return "prose" if re.search(r"[A-Za-z]{2,} [A-Za-z]{2,}", inner) else "code"


# A passage under a question -------------------------------------------------------------------------------------------


def signs(query: Query, passage: Passage, rank: int, count: int) -> tuple[list[list[str]], list[str]]:
    """The signs of every candidate, and those of "it is not in the text".

    Args:
        query: the question.
        passage: what was found for it.
        rank: of the passage among those that were found, from 0.
        count: of the passages that were found.
    """
    seen = look(passage)
    wanted = query.stems
    owned = {name for row in seen.lines for name in row.owners} | set(seen.names)
    hit = bool(query.names & owned)
    shared = [_share(wanted, row.stems) for row in seen.lines]
    around = [_around(wanted, seen.lines, i) for i in range(len(seen.lines))]
    best_line, best_around = max(shared, default=0.0), max(around, default=0.0)
    titled = _share(wanted, seen.stems)
    whole = _share(wanted, seen.stems.union(*(row.stems for row in seen.lines)))
    common = [f"rank:{min(rank, 2)}/{min(count, 2)}", f"title share:{_level(titled)}"]
    every = []
    for candidate, own, inside in zip(seen.found, seen.signs, seen.words, strict=True):
        row = seen.lines[candidate.line]
        owner = _owner(query, row, seen.names, hit)
        key = _meets(candidate.key, query)
        numbered = _numbered(query, passage.text, candidate)
        every.append([
            *own,
            *common,
            f"owner:{owner}",
            f"owner:{owner} role:{candidate.roles[0]}",
            f"owner:{owner} line:{row.first}",
            f"key:{key}",
            f"key:{key} owner:{owner}",
            f"key:{key} role:{candidate.roles[0]}",
            f"inside:{_level(_share(wanted, inside))}",
            f"line share:{_level(shared[candidate.line])}",
            f"around share:{_level(around[candidate.line])}",
            f"above share:{_level(shared[candidate.line - 1] if candidate.line else 0.0)}",
            f"best line:{shared[candidate.line] >= best_line > 0}",
            f"best around:{around[candidate.line] >= best_around > 0}",
            f"best around:{around[candidate.line] >= best_around > 0} role:{candidate.roles[0]}",
            f"number:{numbered}",
        ])  # fmt: skip
    names = query.names & seen.text
    absent = [
        "absent",
        f"absent whole:{_level(whole)}",
        f"absent names:{_level(len(names) / max(1, len(query.names)))}",
        f"absent owner:{hit}",
        f"absent around:{_level(best_around)}",
        f"absent title:{_level(titled)}",
        f"absent rank:{min(rank, 2)}/{min(count, 2)}",
    ]
    return every, absent


def _meets(key: str, query: Query) -> str:
    """Whether the name that a candidate belongs to is one that the question names."""
    if not key:
        return "none"
    words = _WORD.findall(key)
    named = {word.lower().strip("_") for word in words} & query.names
    return "hit" if named or stems(words) & query.stems else "miss"


def _share(wanted: frozenset[str], stems: frozenset[str]) -> float:
    return len(wanted & stems) / len(wanted) if wanted else 0.0


def _around(wanted: frozenset[str], rows: Sequence[_Line], line: int) -> float:
    """How much of the question stands on a line and the three after it that belong to the same definition."""
    found: frozenset[str] = rows[line].stems
    for row in rows[line + 1 : line + 4]:
        if row.first in ("def", "class", "@"):
            break
        found = found | row.stems
    return _share(wanted, found)


def _level(share: float) -> str:
    return "0" if share == 0 else "1" if share >= 1 else "low" if share <= 0.4 else "half" if share <= 0.7 else "high"


def _owner(query: Query, row: _Line, titles: Sequence[str], hit: bool) -> str:
    """Whether the definition that a line stands in is the one that the question names."""
    chain = row.owners
    if chain and chain[-1] in query.names:
        outer = {*chain[:-1], *titles[:-1]} & query.outer
        return "inner+outer" if outer else "inner"
    if query.names & set(chain):
        return "outer"
    if not hit:
        return "unknown"
    return "title" if query.names & set(titles) else "other"


def _numbered(query: Query, text: str, candidate: Candidate) -> str:
    if not query.ordinal:
        return "none"
    begin = text.rfind("\n", 0, candidate.start) + 1
    marker = _MARKER.match(text[begin : begin + 40].lstrip())
    return "none" if not marker else "hit" if int(marker[1]) == query.ordinal else "miss"
