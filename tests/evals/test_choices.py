from __future__ import annotations

import pytest
import torch

from puna.base.errors import InputError
from puna.core.verdict import Task
from puna.engine.local import LocalModel
from puna.evals.choices import TokenLikelihood, choose, chosen, letter_in, letter_prompt
from puna.testing import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return LocalModel(tiny_model(max_position_embeddings=64), tiny_tokenizer())


@pytest.fixture(scope="module")
def likelihood(model: LocalModel) -> TokenLikelihood:
    return TokenLikelihood(model, lambda text: model.tokenizer.encode(text, bos=True), 64)


def reference(model: LocalModel, ids: list[int], count: int) -> float:
    """The sum over the last `count` ids, from the logits of a plain forward pass."""
    logprobs = torch.log_softmax(model.logits([ids[:-1]])[0].double(), -1)
    return sum(float(logprobs[i, ids[i + 1]]) for i in range(len(ids) - 1 - count, len(ids) - 1))


def test_the_likelihood_is_that_of_the_continuation_alone(model: LocalModel, likelihood: TokenLikelihood) -> None:
    pairs = [("Question: why?\nAnswer:", " so"), ("", "ab"), ("x", " a much longer continuation")]
    for (prompt, text), found in zip(pairs, likelihood(pairs), strict=True):
        ids = model.tokenizer.encode(prompt + text, bos=True)
        assert found == pytest.approx(reference(model, ids, len(text)), rel=1e-5)


def test_blanks_at_the_prompts_end_count_to_the_continuation(likelihood: TokenLikelihood) -> None:
    assert likelihood([("so ", "be")]) == likelihood([("so", " be")])


def test_a_prompt_too_long_loses_its_beginning(model: LocalModel, likelihood: TokenLikelihood) -> None:
    prompt = "abcdefghij" * 20
    ids = model.tokenizer.encode(prompt + " so", bos=True)[-65:]
    assert likelihood([(prompt, " so")])[0] == pytest.approx(reference(model, ids, 3), rel=1e-5)
    with pytest.raises(InputError, match="100 tokens; the model's context holds 64"):
        likelihood([("a", "b" * 100)])
    with pytest.raises(InputError, match="no tokens of its own"):
        likelihood([("a", "")])


def test_the_likeliest_and_the_likeliest_a_byte_are_chosen() -> None:
    task = Task("1", "q", "long one", meta={"choices": ["no", "long one", "été"], "gold": 1})
    found = chosen(task, [-4.0, -8.0, -9.0])
    assert (found.by_sum, found.by_bytes, found.acc, found.acc_norm) == (0, 1, 0.0, 1.0)
    assert chosen(task, [-4.0, -8.0, -4.5]).by_bytes == 2, "é has two bytes"
    assert chosen(task, [-4.0, -4.0, -4.0]).by_sum == 0


def test_every_choice_of_every_task_is_scored_after_its_prompt() -> None:
    asked = []

    def likelihood(pairs):
        asked.extend(pairs)
        return [-float(len(text)) for _, text in pairs]

    tasks = [
        Task("1", "p", "b", meta={"choices": ["aa", "b"], "gold": 1}),
        Task("2", "q", "c", meta={"choices": ["c", "dd", "ee"], "gold": 2}),
    ]
    assert [found.acc for found in choose(likelihood, tasks, ["P", "Q"])] == [1.0, 0.0]
    assert asked == [("P", " aa"), ("P", " b"), ("Q", " c"), ("Q", " dd"), ("Q", " ee")]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("(c) it", None), ("(C) it", "C"), ("The answer is **D**.", "D"), ("so \\boxed{A}", "A"),
        ("A dog? The correct answer: B", "B"), ("None of them", None), ("", None),
    ],
)  # fmt: skip
def test_a_letter_is_found_as_models_give_it(answer: str, letter: str | None) -> None:
    assert letter_in(answer) == letter


def test_a_chat_is_shown_the_choices_with_letters_once() -> None:
    task = Task("1", "Question: why?\nAnswer:", "so", meta={"choices": ["so", "not"], "gold": 0})
    assert letter_prompt(task).startswith("Question: why?\nA. so\nB. not\n\nAnswer with the letter")
    mmlu = Task("1", "Why?\nA. so\nB. not\nAnswer:", "A", meta={"choices": ["A", "B"], "gold": 0})
    assert letter_prompt(mmlu).startswith("Why?\nA. so\nB. not\n\nAnswer with the letter")
