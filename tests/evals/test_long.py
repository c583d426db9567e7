from __future__ import annotations

import re
from collections import Counter

import pytest

from puna.base.errors import ConfigError
from puna.evals.long import DEPTHS, KINDS, generate


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1024, 5000, 60_000])
def test_questions_have_their_length_and_hold_what_is_wanted(kind: str, length: int) -> None:
    suite = generate(kind, length)
    assert suite.measure == "passage" and len(suite.tasks) == 22
    for task in suite.tasks:
        assert length - 330 <= len(task.prompt.encode()) <= length
        assert task.meta["wanted"] and all(text in task.prompt for text in task.meta["wanted"])
        assert len(set(task.meta["wanted"])) == len(task.meta["wanted"])


def test_a_seed_gives_its_own_suite() -> None:
    assert generate("needle", 2000, seed=1) == generate("needle", 2000, seed=1) != generate("needle", 2000, seed=2)


def test_needles_stand_at_every_depth() -> None:
    tasks = generate("needle", 20_000, count=11).tasks
    places = [task.prompt.index("The number of the") / len(task.prompt) for task in tasks]
    assert places == pytest.approx(DEPTHS, abs=0.02)
    assert [task.kind for task in tasks][:2] == ["depth 0%", "depth 10%"]


def test_the_key_that_is_asked_for_leads_to_its_own_number() -> None:
    for kind in ("needle", "keys", "values"):
        for task in generate(kind, 8000).tasks:
            key = re.search(r"numbers? of the (\w+ \w+)\? Answer", task.prompt)
            assert key
            numbers = re.findall(rf"The number of the {key[1]} is (\d+)\.", task.prompt)
            assert sorted(numbers) == sorted(task.meta["wanted"])
            assert len(numbers) == (4 if kind == "values" else 1)


def test_chains_of_variables_can_be_followed_in_order() -> None:
    for task in generate("variables", 4000).tasks:
        held: dict[str, str] = {}
        for name, value in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)\.", task.prompt):
            held[name] = held.get(value, value)
        asked = re.search(r"the value (\d+)\?", task.prompt)
        assert asked and [name for name, value in held.items() if value == asked[1]] == task.meta["wanted"]
        assert len(held) == 10


def test_the_frequent_words_are_the_most_frequent() -> None:
    for task in generate("words", 3000).tasks:
        counts = Counter(task.prompt.split("\n\n")[1].split())
        assert {word for word, _ in counts.most_common(3)} == set(task.meta["wanted"])
        assert counts.most_common(4)[2][1] >= 2 * counts.most_common(4)[3][1]


@pytest.mark.parametrize(
    ("kind", "length", "count", "says"),
    [("needles", 2000, 1, "no long task"), ("needle", 1000, 1, "shortest has 1024"), ("needle", 2000, 0, "at least 1")],
)
def test_faulty_settings_are_refused(kind: str, length: int, count: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        generate(kind, length, count)
