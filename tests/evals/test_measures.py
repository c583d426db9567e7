from __future__ import annotations

from typing import Any

import pytest

from puna.base.errors import ConfigError
from puna.core.chat import Message, ToolCall
from puna.core.completion import Completion
from puna.core.verdict import Task
from puna.evals.choices import Chosen
from puna.evals.measures import judge, judge_choice, program
from puna.evals.suites import Measure, Suite


def judged(measure: Measure, answer: str | Message, reference: str = "", **meta: Any) -> dict[str, Any]:
    task = Task("1", "q", reference, meta=meta)
    message = answer if isinstance(answer, Message) else Message("assistant", answer)
    return judge(Suite("s", measure, (task,)), task, Completion(message))[0]


def test_each_measure_gives_its_scores() -> None:
    assert judged("choice", "The answer is B", choices=["x", "y"], gold=1) == {"acc": 1.0}
    assert judged("choice", "I pass", choices=["x", "y"], gold=1) == {"acc": 0.0}
    assert judged("number", "It is 72.", "#### 72") == {"flexible": 1.0, "strict": 0.0}
    assert judged("passage", "It is RED and blue", wanted=["red", "green"]) == {"found": 0.5}
    wanted = [{"id": "punctuation:no_comma", "kwargs": {}}, {"id": "startend:quotation", "kwargs": {}}]
    assert judged("instructions", '"a, b"', instructions=wanted) == {
        "prompt_strict": 0.0, "instruction_strict": [0.0, 1.0], "prompt_loose": 0.0, "instruction_loose": [0.0, 1.0]
    }  # fmt: skip


def test_calls_come_parsed_or_as_text_and_where_none_is_expected_none_may_come() -> None:
    expected = [{"f": {"a": [1]}}]
    call = Message("assistant", "", (ToolCall("f", {"a": 1}),))
    assert judged("calls", call, expected=expected) == {"match": 1.0}
    assert judged("calls", "[f(a=1)]", expected=expected) == {"match": 1.0}
    assert judged("calls", "f is 1", expected=expected) == {"match": 0.0}
    assert judged("calls", "I need no tool.", expected=[]) == {"match": 1.0}
    assert judged("calls", call, expected=[]) == {"match": 0.0}


def test_a_choice_by_likelihood_keeps_both_scores_and_the_log_likelihoods() -> None:
    scores, found = judge_choice(Chosen((-1.0, -2.0), 0, 1, 1))
    assert scores == {"acc": 0.0, "acc_norm": 1.0} and found["logprobs"] == [-1.0, -2.0]


HUMAN = Task(
    "1",
    "import math\n\ndef f(x):\n",
    "",
    meta={"prefix": "import math\n\ndef f(x):\n", "entry_point": "f", "test": "assert f(4) == 2\n"},
)


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ("    return math.isqrt(x)\n", True),
        ("```python\ndef f(x):\n    return math.isqrt(x)\n```\nThat is it.", True),
        ("Here:\n```\ndef f(x):\n    return x\n```", False),
        ("no code", False),
    ],
)
def test_a_program_holds_the_questions_code_the_answer_and_the_test(answer: str, passes: bool) -> None:
    def run(text: str) -> bool:
        try:
            exec(compile(text, "answer", "exec"), {})
        except (AssertionError, SyntaxError):
            return False
        return True

    suite = Suite("s", "code", (HUMAN,))
    scores, found = judge(suite, HUMAN, Completion(Message("assistant", answer)), run)
    assert scores == {"passed": float(passes)}
    assert found["program"] == program(answer, HUMAN)


def test_programs_need_something_that_runs_them() -> None:
    with pytest.raises(ConfigError, match="nothing to run them in"):
        judge(Suite("s", "code", (HUMAN,)), HUMAN, Completion(Message("assistant", "")))
