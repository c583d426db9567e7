"""What an answer is worth under each measure: named scores between 0 and 1, and what was found in the answer.

Programs are judged by whoever runs them: a `Run` takes a program and says whether it ended without an error. `programs`
runs them in a sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from puna.base.errors import ConfigError
from puna.core.completion import Completion
from puna.core.verdict import Task
from puna.evals import numbers
from puna.evals.calls import expected_calls, match_text, mismatch
from puna.evals.choices import Chosen, letter_in
from puna.evals.instructions import followed, followed_loosely
from puna.evals.suites import Suite

Run = Callable[[str], bool]
Scores = dict[str, float | list[float]]  # a list has several values for one question, such as its instructions
Judged = tuple[Scores, dict[str, Any]]

_FENCE = re.compile(r"```[ \t]*(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


def judge(suite: Suite, task: Task, completion: Completion, run: Run | None = None) -> Judged:
    """Scores one answer.

    Raises:
        ConfigError: a program, and nothing to run it with.
    """
    answer = completion.message.content
    match suite.measure:
        case "choice":
            letter = letter_in(answer)
            place = ord(letter) - ord("A") if letter else -1
            return {"acc": float(place == task.meta["gold"])}, {"letter": letter}
        case "number":
            return _number(answer, task.answer)
        case "instructions":
            return _instructions(answer, task)
        case "calls":
            return _calls(completion, task)
        case "passage":
            wanted = list(task.meta["wanted"])
            found = [text for text in wanted if text.lower() in answer.lower()]
            return {"found": len(found) / len(wanted)}, {"found": found}
        case "code":
            if run is None:
                raise ConfigError(
                    f"{suite.name} asks for programs, and there is nothing to run them in.", hint="Leave it out."
                )
            text = program(answer, task)
            return {"passed": float(run(text))}, {"program": text}


def judge_choice(chosen: Chosen) -> Judged:
    scores: Scores = {"acc": chosen.acc, "acc_norm": chosen.acc_norm}
    return scores, {"logprobs": list(chosen.logprobs), "choice": chosen.by_sum, "choice_norm": chosen.by_bytes}


def _number(answer: str, reference: str) -> Judged:
    strict, flexible = numbers.strict(answer), numbers.flexible(answer)
    scores: Scores = {
        "flexible": numbers.same_number(flexible, reference),
        "strict": numbers.same_number(strict, reference),
    }
    return scores, {"flexible": flexible, "strict": strict}


def _instructions(answer: str, task: Task) -> Judged:
    wanted: Sequence[Mapping[str, Any]] = task.meta["instructions"]
    strict = [float(followed(one["id"], one["kwargs"], answer, task.prompt)) for one in wanted]
    loose = [float(followed_loosely(one["id"], one["kwargs"], answer, task.prompt)) for one in wanted]
    scores: Scores = {
        "prompt_strict": float(all(strict)),
        "instruction_strict": strict,
        "prompt_loose": float(all(loose)),
        "instruction_loose": loose,
    }
    return scores, {"instructions": [one["id"] for one in wanted]}


def _calls(completion: Completion, task: Task) -> Judged:
    """Calls that the model's parser has found; else those in its text. Where none is expected, none may come."""
    expected = expected_calls(task.meta["expected"])
    calls = completion.message.tool_calls
    if calls or not expected:
        reason = mismatch(calls, expected)
    else:
        reason = match_text(completion.message.content, expected)
    made = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
    return {"match": float(not reason)}, {"calls": made, "reason": reason}


def program(answer: str, task: Task) -> str:
    """The program that tests an answer: its first block of code, or all of it, before the test.

    An answer that does not define the function asked for goes on where the question ended (HumanEval's base form).
    """
    fenced = _FENCE.search(answer)
    code = fenced[1] if fenced else answer.removesuffix("[DONE]")
    prefix, entry = str(task.meta.get("prefix", "")), str(task.meta.get("entry_point", ""))
    if prefix and f"def {entry}" not in code:
        code = prefix + code
    elif prefix:
        # Imports and helpers of the question stand before its own function.
        code = prefix[: prefix.rfind(f"def {entry}")] + code
    return f"{code.rstrip()}\n\n{task.meta['test']}"
