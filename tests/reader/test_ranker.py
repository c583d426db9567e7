"""The ranker learns from questions with answers which span is asked for, and says when none is there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from puna.base.errors import ArtifactError
from puna.knowledge.chunk import Passage
from puna.reader.ranker import Example, Ranker, RankerConfig, fit

NAMES = ("copper", "silver", "marble", "timber", "velvet", "amber", "pewter", "linen", "paper", "cotton")
FORMS = {
    "deed": "What does {name} do?",
    "default": "What is the default of scale in {name}?",
    "parameters": "What are the parameters of {name}?",
    "error": "Which exception does {name} raise?",
}


def passage(i: int) -> Passage:
    name = NAMES[i % len(NAMES)]
    text = (
        f"def weigh_{name}_{i}(amount, scale={i + 1}):\n"
        f'    """Give the weight of some {name}."""\n'
        f"    raise {name.title()}Error(amount)\n"
    )
    return Passage(f"d{i}", f"m{i}.py", 10 * i, 10 * i + len(text), f"def weigh_{name}_{i}", text)


def answer(i: int, form: str) -> str:
    name = NAMES[i % len(NAMES)]
    return {
        "deed": f"Give the weight of some {name}.",
        "default": str(i + 1),
        "parameters": f"amount, scale={i + 1}",
        "error": f"{name.title()}Error",
    }[form]


def example(i: int, form: str, *, there: bool = True) -> Example:
    shown = passage(i) if there else passage(i + 1)
    name = f"weigh_{NAMES[i % len(NAMES)]}_{i}"
    place = None
    if there:
        at = shown.text.index(answer(i, form))
        if form == "default":
            at = shown.text.index(f"={i + 1}") + 1
        place = (0, shown.start + at, shown.start + at + len(answer(i, form)))
    return Example(FORMS[form].format(name=name), "", (shown,), place)


EXAMPLES = [example(i, form, there=i % 5 > 0) for i in range(40) for form in FORMS]


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    fitted = fit(EXAMPLES, RankerConfig(epochs=8))
    assert fitted is not None
    return fitted


def said(ranker: Ranker, asked: Example) -> str:
    best = ranker.rank(asked.question, asked.passages)[0]
    return "" if best.passage < 0 else asked.passages[best.passage].text[best.start : best.end]


@pytest.mark.parametrize("form", FORMS)
def test_questions_on_passages_that_it_has_not_seen_are_answered(ranker: Ranker, form: str) -> None:
    for i in range(100, 110):
        assert said(ranker, example(i, form)) == answer(i, form)


def test_a_passage_that_does_not_answer_is_told(ranker: Ranker) -> None:
    assert [said(ranker, example(i, form, there=False)) for i in range(100, 105) for form in FORMS] == [""] * 20


def test_probabilities_are_those_of_all_candidates_best_first(ranker: Ranker) -> None:
    ranked = ranker.rank("What does weigh_copper_100 do?", [passage(100), passage(101)])
    assert sum(one.probability for one in ranked) == pytest.approx(1, abs=1e-5)
    assert [one.score for one in ranked] == sorted((one.score for one in ranked), reverse=True)
    assert {one.passage for one in ranked} == {-1, 0, 1}


def test_a_ranker_is_saved_and_loaded(ranker: Ranker, tmp_path: Path) -> None:
    ranker.save(tmp_path)
    loaded = Ranker.load(tmp_path)
    asked = example(100, "deed")
    old, new = (which.rank(asked.question, asked.passages) for which in (ranker, loaded))
    assert [(o.start, o.end) for o in old[:3]] == [(n.start, n.end) for n in new[:3]]
    assert np.allclose([o.score for o in old[:9]], [n.score for n in new[:9]], atol=0.05)


def test_the_same_examples_give_the_same_ranker() -> None:
    first, second = (fit(EXAMPLES[:40], RankerConfig(epochs=2)) for _ in range(2))
    assert first is not None
    assert second is not None
    assert np.array_equal(first.weights, second.weights)


def test_answers_that_are_no_candidates_teach_nothing() -> None:
    odd = dataclasses.replace(EXAMPLES[4], place=(0, passage(1).start + 1, passage(1).start + 3))
    assert fit([odd], RankerConfig()) is None


@pytest.mark.parametrize("damage", ["{}", "[", '{"grams": ["<any>"], "signs": []}'])
def test_a_damaged_ranker_is_refused(ranker: Ranker, tmp_path: Path, damage: str) -> None:
    with pytest.raises(ArtifactError, match="ranker"):
        Ranker.load(tmp_path)
    ranker.save(tmp_path)
    (tmp_path / "ranker.json").write_text(damage)
    with pytest.raises(ArtifactError):
        Ranker.load(tmp_path)
