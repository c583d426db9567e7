"""A suite: questions of one kind, how they are put, and which measure judges the answers.

A question is a `Task` of core. What a measure needs beyond prompt and reference stands in `meta`:

    choice        choices: the texts among which to choose; gold: the place of the right one
    number        nothing: the answer is the number
    instructions  instructions: [{"id", "kwargs"}], the verifiable instructions of IFEval
    code          test: a program that follows the answer and fails unless it is right; prefix: code before the answer
    calls         tools: what may be called (OpenAI's form); expected: the calls, each argument with its allowed values
    passage       wanted: texts that all must occur in the answer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from puna.base.errors import ConfigError
from puna.core.verdict import Task

Measure = Literal["choice", "number", "instructions", "code", "calls", "passage"]


@dataclass(frozen=True, slots=True)
class Suite:
    """Questions that are put and judged alike.

    Attributes:
        name: of the results.
        measure: what judges an answer.
        tasks: the questions.
        examples: answered questions to show before; where they are the suite's own, none is shown for itself.
        max_tokens: an answer is cut off here.
        stop: texts that end an answer where plain text is continued (a chat ends its turn itself).
    """

    name: str
    measure: Measure
    tasks: tuple[Task, ...]
    examples: tuple[Task, ...] = ()
    max_tokens: int = 512
    stop: tuple[str, ...] = ()

    def limited(self, limit: int | None) -> Suite:
        """The first `limit` questions; the examples stay."""
        examples = self.examples or self.tasks
        return replace(self, tasks=self.tasks[:limit], examples=examples)


def prompt_of(suite: Suite, task: Task, shots: int) -> str:
    """What a question is put as: the header of its kind, the first `shots` examples of its kind, itself.

    Raises:
        ConfigError: fewer examples than asked for.
    """
    header = str(task.meta.get("header", ""))
    if shots == 0:
        return header + task.prompt
    shown = examples_for(suite, task)[:shots]
    if len(shown) < shots:
        kind = f" of the kind {task.kind!r}" if task.kind else ""
        raise ConfigError(
            f"{shots} examples are to stand before a question of {suite.name}, and there are {len(shown)}{kind}.",
            hint="Ask for fewer with --shots, or give a file of them with --examples.",
        )
    return header + "".join(f"{one.prompt} {one.answer}\n\n" for one in shown) + task.prompt


def examples_for(suite: Suite, task: Task) -> Sequence[Task]:
    pool = suite.examples or suite.tasks
    return [one for one in pool if one.kind == task.kind and one.prompt != task.prompt]
