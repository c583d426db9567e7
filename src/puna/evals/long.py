"""Long-context tasks, generated from a seed: a needle in a haystack, and RULER's kinds (arXiv 2404.06654).

    needle      one key's number, hidden at a depth from beginning to end
    keys        the number of one key among many
    values      all four numbers of one key
    variables   every name that holds a value, through a chain of assignments
    words       the three words that come most often

The haystack is made of plain sentences, so that nothing is fetched and no model has read it before. A length is in
bytes of UTF-8, for a suite must not depend on a tokenizer; English takes about four bytes to a token. What this leaves
out is RULER's questions over other data sets' paragraphs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

from puna.base.config import read_toml, require
from puna.base.errors import ConfigError, near
from puna.core.verdict import Task
from puna.evals.suites import Suite

DEPTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SHORTEST = 1024  # bytes; less holds no question of every kind


@cache
def _words_of(kind: str) -> list[str]:
    words = read_toml(Path(__file__).parent / "assets" / "long.toml")[kind]
    return words.split() if isinstance(words, str) else words


def generate(kind: str, length: int, count: int = 22, seed: int = 0) -> Suite:
    """A suite of one kind.

    Args:
        kind: one of `KINDS`.
        length: of a question at most, in bytes; no more than a sentence less.
        count: of questions; 22 gives each of the 11 depths two.
        seed: the same seed gives the same suite.

    Raises:
        ConfigError: an unknown kind, or a length too short.
    """
    if kind not in KINDS:
        raise ConfigError(f"There is no long task {kind!r}.", hint=near(kind, KINDS))
    require(length >= SHORTEST, f"A long task of {length} bytes is asked for; the shortest has {SHORTEST}.")
    require(count >= 1, f"{count} questions are asked for; it must be at least 1.")
    tasks = []
    for number in range(count):
        draw = random.Random(f"{kind} {length} {seed} {number}")
        depth = DEPTHS[number % len(DEPTHS)]
        prompt, wanted = KINDS[kind](draw, length, depth)
        tasks.append(Task(str(number), prompt, ", ".join(wanted), f"depth {depth:.0%}", {"wanted": wanted}))
    return Suite(f"{kind}-{length}", "passage", tuple(tasks), max_tokens=128)


def _needle(draw: random.Random, length: int, depth: float) -> tuple[str, list[str]]:
    key, number = _keys(draw, 1)[0], _number(draw)
    return _numbers(draw, length, [(key, number)], key, [depth]), [number]


def _many_keys(draw: random.Random, length: int, depth: float) -> tuple[str, list[str]]:
    keys = _keys(draw, max(4, min(64, length // 512)))
    pairs = [(key, _number(draw)) for key in keys]
    depths = [depth, *(draw.random() for _ in keys[1:])]
    return _numbers(draw, length, pairs, keys[0], depths), [pairs[0][1]]


def _many_values(draw: random.Random, length: int, depth: float) -> tuple[str, list[str]]:
    key = _keys(draw, 1)[0]
    numbers = [_number(draw) for _ in range(4)]
    depths = [depth, *(draw.random() for _ in numbers[1:])]
    return _numbers(draw, length, [(key, number) for number in numbers], key, depths), numbers


def _variables(draw: random.Random, length: int, depth: float) -> tuple[str, list[str]]:
    """A chain of five names for one value, in order, among the sentences, and another chain beside it."""
    names = ["".join(draw.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 5)) for _ in range(10)]
    values = _number(draw), _number(draw)
    chains = [names[:5], names[5:]]
    lines: list[tuple[float, str]] = []
    for chain, value in zip(chains, values, strict=True):
        places = sorted([depth, *(draw.random() for _ in chain[1:])])
        texts = [f"VAR {chain[0]} = {value}."]
        texts += [f"VAR {name} = VAR {before}." for before, name in pairwise(chain)]
        lines += zip(places, texts, strict=True)
    question = f"\n\nWhich variables hold the value {values[0]}? Give all five names, and nothing else."
    opening = "Follow the assignments of variables that are hidden in this text.\n\n"
    return _filled(draw, length, opening, question, lines), chains[0]


def _words(draw: random.Random, length: int, depth: float) -> tuple[str, list[str]]:
    """A list of made-up words, three of which come three times as often as the others; depth plays no part."""
    del depth
    words: list[str] = []
    while len(words) < 40:
        made = "".join(draw.choice("bdfgklmnprstv") + draw.choice("aeiou") for _ in range(3))
        if made not in words:
            words.append(made)
    opening, question = "Here is a list of words.\n\n", "\n\nWhich three words come most often? Give them alone."
    frequent = words[:3]
    listed: list[str] = []
    size = len(opening) + len(question)
    one_round = frequent * 3 + words[3:]
    while size + 7 * len(one_round) <= length:
        listed += one_round
        size += 7 * len(one_round)
    listed += frequent * ((length - size) // 21)
    draw.shuffle(listed)
    return f"{opening}{' '.join(listed)}{question}", frequent


KINDS: dict[str, Callable[[random.Random, int, float], tuple[str, list[str]]]] = {
    "needle": _needle,
    "keys": _many_keys,
    "values": _many_values,
    "variables": _variables,
    "words": _words,
}


def _keys(draw: random.Random, count: int) -> list[str]:
    every = [f"{colour} {thing}" for colour in _words_of("colours") for thing in _words_of("things")]
    return draw.sample(every, count)


def _number(draw: random.Random) -> str:
    return str(draw.randrange(1_000_000, 10_000_000))


def _numbers(draw: random.Random, length: int, pairs: list[tuple[str, str]], key: str, depths: list[float]) -> str:
    lines = [
        (depth, f"The number of the {name} is {number}.") for depth, (name, number) in zip(depths, pairs, strict=True)
    ]
    several = sum(name == key for name, _ in pairs) > 1
    asked = f"What are all the numbers of the {key}?" if several else f"What is the number of the {key}?"
    opening = "Some numbers are hidden in this text. Remember them.\n\n"
    return _filled(draw, length, opening, f"\n\n{asked} Answer with the digits alone.", lines)


def _filled(draw: random.Random, length: int, opening: str, question: str, lines: list[tuple[float, str]]) -> str:
    """Sentences up to the length, with each line put in at its depth; lines of one depth keep their order."""
    size = len(opening) + len(question) + sum(len(line) + 1 for _, line in lines)
    sentences: list[str] = []
    while True:
        sentence = _sentence(draw)
        if size + len(sentence) + 1 > length:
            break
        sentences.append(sentence)
        size += len(sentence) + 1
    texts: list[str] = []
    placed = sorted(((round(depth * len(sentences)), line) for depth, line in lines), key=lambda one: one[0])
    for place in range(len(sentences) + 1):
        while placed and placed[0][0] == place:
            texts.append(placed.pop(0)[1])
        texts += sentences[place : place + 1]
    return f"{opening}{' '.join(texts)}{question}"


def _sentence(draw: random.Random) -> str:
    person, verb, thing, place, time = (
        draw.choice(_words_of(kind)) for kind in ("people", "verbs", "things", "places", "times")
    )
    return f"The {person} {verb} the {thing} near the {place} {time}."
