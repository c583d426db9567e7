from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from puna.base.errors import ConfigError, InputError
from puna.evals.formats import detect, read_suite
from puna.evals.suites import prompt_of


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


MMLU = {"question": " What is 2 + 2? ", "choices": ["3", "4", "5", "6"], "answer": 1, "subject": "high_school_maths"}


def test_mmlu_is_put_as_its_paper_puts_it(tmp_path: Path) -> None:
    suite = read_suite(
        write(tmp_path / "mmlu.jsonl", MMLU),
        examples=write(tmp_path / "dev.jsonl", MMLU | {"answer": 0, "question": "1 + 2?"}),
    )
    (task,) = suite.tasks
    assert prompt_of(suite, task, 1) == (
        "The following are multiple choice questions (with answers) about high school maths.\n\n"
        "1 + 2?\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer: A\n\n"
        "What is 2 + 2?\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer:"
    )
    assert (suite.measure, task.answer, task.kind, task.meta["gold"]) == ("choice", "B", "high_school_maths", 1)


def test_mmlus_own_csv_has_no_header_and_its_subject_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "abstract_algebra_test.csv").write_text("What is 2 + 2?,3,4,5,6,B\n")
    (task,) = read_suite(tmp_path / "abstract_algebra_test.csv").tasks
    assert (task.answer, task.kind) == ("B", "abstract_algebra")
    assert task.prompt == "What is 2 + 2?\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer:"


def test_arc_scores_the_texts_of_its_choices(tmp_path: Path) -> None:
    row = {"id": "M1", "question": "Why?", "choices": {"text": ["so", "not"], "label": ["1", "2"]}, "answerKey": "2"}
    nested = {
        "id": "M1",
        "question": {"stem": "Why?", "choices": [{"text": "so", "label": "1"}, {"text": "not", "label": "2"}]},
        "answerKey": "2",
    }
    for number, one in enumerate((row, nested)):
        (task,) = read_suite(write(tmp_path / f"{number}.jsonl", one)).tasks
        assert (task.id, task.prompt, task.answer) == ("M1", "Question: Why?\nAnswer:", "not")
        assert task.meta == {"choices": ["so", "not"], "gold": 1}


def test_hellaswag_loses_wikihows_marks(tmp_path: Path) -> None:
    row = {
        "ind": 4,
        "activity_label": "Baking",
        "ctx_a": "A man [header] stands.",
        "ctx_b": "he",
        "endings": ["sits [title] Then", "runs"],
        "label": "0",
    }
    (task,) = read_suite(write(tmp_path / "h.jsonl", row)).tasks
    assert (task.id, task.prompt, task.meta["choices"]) == ("4", "Baking: A man stands. He", ["sits. Then", "runs"])


def test_numbers_are_gsm8k_with_the_mark_and_mgsm_without(tmp_path: Path) -> None:
    row = {"question": "1 + 1?", "answer": "1 + 1 = 2\n#### 2"}
    gsm8k = read_suite(write(tmp_path / "g.jsonl", row))
    assert (gsm8k.measure, gsm8k.tasks[0].prompt, gsm8k.max_tokens) == ("number", "Question: 1 + 1?\nAnswer:", 1024)
    (tmp_path / "mgsm_de.tsv").write_text('Eins und "eins"?\t2\n', encoding="utf-8")
    (task,) = read_suite(tmp_path / "mgsm_de.tsv").tasks
    assert (task.prompt, task.answer) == ('Question: Eins und "eins"?\nAnswer:', "2")
    (task,) = read_suite(write(tmp_path / "m.jsonl", {"question": "q", "answer": None, "answer_number": 5})).tasks
    assert task.answer == "5"


def test_ifevals_empty_arguments_are_dropped(tmp_path: Path) -> None:
    row = {"key": 7, "prompt": "Write.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"num": None}]}
    (task,) = read_suite(write(tmp_path / "i.jsonl", row)).tasks
    assert (task.id, task.meta["instructions"]) == ("7", [{"id": "punctuation:no_comma", "kwargs": {}}])


def test_programs_come_with_their_tests(tmp_path: Path) -> None:
    human = {
        "task_id": "HumanEval/0",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "test": "def check(f):\n    assert f(1)",
        "canonical_solution": "    return x\n",
    }
    (task,) = read_suite(write(tmp_path / "h.jsonl", human)).tasks
    assert task.meta["test"].endswith("check(f)\n") and task.meta["prefix"] == "def f(x):\n"
    mbpp = {
        "task_id": 1,
        "text": "Write f.",
        "code": "f = abs",
        "test_list": ["assert f(-1) == 1"],
        "test_setup_code": "import math",
    }
    (task,) = read_suite(write(tmp_path / "m.jsonl", mbpp)).tasks
    assert task.meta["test"] == "import math\nassert f(-1) == 1\n" and "assert f(-1) == 1" in task.prompt


def test_calls_find_their_answers_in_the_folder_beside(tmp_path: Path) -> None:
    function = {"name": "f", "description": "d", "parameters": {"type": "dict", "properties": {"x": {"type": "float"}}}}
    row = {"id": "simple_0", "question": [[{"role": "user", "content": "Call f."}]], "function": [function]}
    path = write(tmp_path / "BFCL_simple.json", row)
    with pytest.raises(InputError, match="no ground_truth"):
        read_suite(path)
    write(tmp_path / "possible_answer" / "BFCL_simple.json", {"id": "simple_0", "ground_truth": [{"f": {"x": [1.0]}}]})
    (task,) = read_suite(path).tasks
    assert task.meta["expected"] == [{"f": {"x": [1.0]}}] and task.prompt == "Call f."
    parameters = task.meta["tools"][0]["function"]["parameters"]
    assert parameters == {"type": "object", "properties": {"x": {"type": "number"}}}


@pytest.mark.parametrize("answer", [1, "B", "1", "not"])
def test_the_right_choice_may_be_a_place_a_letter_or_a_text(tmp_path: Path, answer: object) -> None:
    row = {"context": "So it is", "choices": ["so", "not"], "answer": answer}
    (task,) = read_suite(write(tmp_path / "c.jsonl", row)).tasks
    assert (task.prompt, task.answer) == ("So it is", "not")


@pytest.mark.parametrize(
    ("row", "format", "says"),
    [
        (MMLU | {"answer": "E"}, "", r"question 1: the answer is 'E'; it must be one of A, B, C, D"),
        (MMLU | {"answer": None}, "", "the answer is None"),
        (MMLU | {"choices": "abc"}, "", "the choices are 'abc'"),
        ({"a": 1}, "", "has the columns a, which no known format has"),
        ({"question": "q", "answer": "2"}, "gsm8k", "no '#### number'"),
        ({"question": "q", "answer": "two"}, "mgsm", "it must be a number"),
        ({"question": "q", "choices": ["a"], "answer": 0}, "choice", "at least 2"),
        ({"prompt": "p", "instruction_id_list": ["a"], "kwargs": []}, "", "lists of one length"),
        ({"text": "p", "test_list": []}, "", "it must list assertions"),
        ({"question": 3, "choices": {}, "answerKey": "A"}, "", "is not a question with choices"),
    ],
)
def test_faulty_rows_are_named(tmp_path: Path, row: dict[str, Any], format: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_suite(write(tmp_path / "f.jsonl", row), format)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no format 'mmmlu'") as caught:
        read_suite(tmp_path / "f.jsonl", "mmmlu")
    assert "Did you mean 'mmlu'" in str(caught.value)
    assert detect(MMLU, "f") == "mmlu"
