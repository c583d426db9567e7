"""Puts suites to a model and keeps every sample: resumable, with intervals, the same for the same seed.

A folder of results holds `config.json` (what was asked), `samples-SUITE.jsonl` (a row a question) and `results.json`.
Rows are appended as they come, and a line that a kill has cut is dropped on opening; when a suite is done its rows are
written anew in the order of the questions, whole or not at all. A folder of another configuration is refused, never
mixed. Left out: the model's loading, pages and plots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from puna.base.config import require
from puna.base.errors import InputError
from puna.base.files import folder_lock, hash_json, read_json, write_json, write_jsonl
from puna.base.progress import MetricsLog, Progress, Silent
from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, SamplingParams
from puna.core.protocols import ChatModel
from puna.core.verdict import Score, Task
from puna.evals.choices import Likelihood, choose, letter_prompt
from puna.evals.measures import Judged, Run, judge, judge_choice
from puna.evals.statistics import Comparison, compare, mean_score
from puna.evals.suites import Suite, prompt_of

CONFIG, RESULTS = "config.json", "results.json"
Generate = Callable[[list[str], SamplingParams], list[Completion]]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is measured.

    Attributes:
        name: for the results.
        chat: answers conversations.
        likelihood: scores continuations; None makes multiple choice a question for the letter.
        generate: continues plain text; None where the model only chats.
    """

    name: str
    chat: ChatModel
    likelihood: Likelihood | None = None
    generate: Generate | None = None


@dataclass(frozen=True, slots=True)
class HarnessConfig:
    """How questions are put.

    Attributes:
        shots: examples before each question.
        limit: questions of a suite at most; None for all.
        seed: of sampling and of the bootstrap.
        temperature: of answers.
        plain: whether questions are plain text that the model continues, as for a base model, in place of a chat.
        batch: questions asked at a time; rows are kept after each batch.
    """

    shots: int = 0
    limit: int | None = None
    seed: int = 0
    temperature: float = 0.0
    plain: bool = False
    batch: int = 32

    def __post_init__(self) -> None:
        require(self.shots >= 0, f"shots is {self.shots}; it must be at least 0.")
        require(self.limit is None or self.limit >= 1, f"limit is {self.limit}; it must be at least 1.")
        require(self.batch >= 1, f"batch is {self.batch}; it must be at least 1.")


def evaluate(
    subject: Subject,
    suites: Sequence[Suite],
    config: HarnessConfig,
    folder: Path,
    run: Run | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Asks what the folder does not have yet; returns what `results.json` then holds.

    Args:
        subject: the model.
        suites: with names of their own.
        config: how they are put.
        folder: of the results; made where it is missing.
        run: runs a program, for suites of code.
        progress: told of the questions answered.

    Raises:
        InputError: two suites of one name, or a folder with results of other questions or settings.
        ConfigError: a suite of code without `run`, or fewer examples than `shots`.
        BusyError: another process writes there.
    """
    progress = progress or Silent()
    suites = [suite.limited(config.limit) for suite in suites]
    names = [suite.name for suite in suites]
    if len(set(names)) < len(names):
        raise InputError(f"Two suites have one name: {', '.join(names)}.", hint="Rename one of the files.")
    for suite in suites:
        require(suite.measure != "code" or run is not None, f"{suite.name} asks for programs, and nothing runs them.")
    with folder_lock(folder):
        _claim(folder, subject, suites, config)
        measured = {}
        for suite in suites:
            rows = _rows(subject, suite, config, folder, run, progress)
            scores = scores_of(rows, config.seed)
            by_kind = _by_kind(rows, config.seed)
            measured[suite.name] = {"count": len(rows), "scores": _json(scores)}
            measured[suite.name] |= {"by_kind": by_kind} if len(by_kind) > 1 else {}
        results = {**read_json(folder / CONFIG), "suites": measured}
        write_json(folder / RESULTS, results)
    return results


def _claim(folder: Path, subject: Subject, suites: Sequence[Suite], config: HarnessConfig) -> None:
    """Writes what is asked, or checks that the folder was begun for the same."""
    settings = {key: value for key, value in asdict(config).items() if key != "batch"}
    asked = {suite.name: _fingerprint(suite, config) for suite in suites}
    claim = {"model": subject.name, "config": settings, "questions": asked}
    path = folder / CONFIG
    if path.exists() and (before := read_json(path)) != claim:
        differs = [key for key in claim if before.get(key) != claim[key]]
        raise InputError(
            f"{folder} holds results of another evaluation: {' and '.join(differs)} differ.",
            hint="Choose another --out, or delete the folder.",
        )
    write_json(path, claim)


def _fingerprint(suite: Suite, config: HarnessConfig) -> str:
    asked = [[task.id, prompt_of(suite, task, config.shots), task.answer, dict(task.meta)] for task in suite.tasks]
    return hash_json([suite.measure, suite.max_tokens, list(suite.stop), asked])[:16]


def _rows(
    subject: Subject, suite: Suite, config: HarnessConfig, folder: Path, run: Run | None, progress: Progress
) -> list[dict[str, Any]]:
    path = samples_path(folder, suite.name)
    log = MetricsLog(path)
    kept = {row["number"]: row for row in log.read()}
    missing = [number for number in range(len(suite.tasks)) if number not in kept]
    with progress.task(suite.name, len(suite.tasks), "questions", done=len(kept)) as bar:
        for start in range(0, len(missing), config.batch):
            numbers = missing[start : start + config.batch]
            tasks = [suite.tasks[number] for number in numbers]
            for number, task, row in zip(numbers, tasks, _ask(subject, suite, tasks, config, run), strict=True):
                kept[number] = {"number": number, "id": task.id, "kind": task.kind, **row}
                log.write(**kept[number])
            bar.advance(len(numbers))
    rows = [kept[number] for number in sorted(kept)]
    if missing:
        write_jsonl(path, rows)
    return rows


def _ask(
    subject: Subject, suite: Suite, tasks: Sequence[Task], config: HarnessConfig, run: Run | None
) -> Iterator[dict[str, Any]]:
    prompts = [prompt_of(suite, task, config.shots) for task in tasks]
    if suite.measure == "choice" and subject.likelihood is not None:
        for prompt, task, chosen in zip(prompts, tasks, choose(subject.likelihood, tasks, prompts), strict=True):
            yield _row(prompt, task, str(task.meta["choices"][chosen.by_sum]), judge_choice(chosen))
        return
    if suite.measure == "choice":
        prompts = [letter_prompt(task) for task in tasks]
    for prompt, task, completion in zip(prompts, tasks, _complete(subject, suite, tasks, prompts, config), strict=True):
        yield _row(prompt, task, completion.message.content, judge(suite, task, completion, run))


def _complete(
    subject: Subject, suite: Suite, tasks: Sequence[Task], prompts: Sequence[str], config: HarnessConfig
) -> list[Completion]:
    stop = suite.stop if config.plain else ()
    params = SamplingParams(temperature=config.temperature, max_tokens=suite.max_tokens, stop=stop, seed=config.seed)
    if suite.measure == "calls":
        return [_call(subject, task, params) for task in tasks]
    if not config.plain:
        return subject.chat.chat_batch([[Message("user", prompt)] for prompt in prompts], params)
    if subject.generate is None:
        raise InputError(f"{subject.name} answers conversations only.", hint="Leave --plain out.")
    return subject.generate(list(prompts), params)


def _call(subject: Subject, task: Task, params: SamplingParams) -> Completion:
    messages = [Message.from_json(message) for message in task.meta["messages"]]
    return subject.chat.chat(messages, params, [ToolSpec.from_json(tool) for tool in task.meta["tools"]])


def _row(prompt: str, task: Task, answer: str, judged: Judged) -> dict[str, Any]:
    scores, found = judged
    return {"prompt": prompt, "reference": task.answer, "answer": answer, "scores": scores, "found": found}


def samples_path(folder: Path, suite: str) -> Path:
    return folder / f"samples-{suite}.jsonl"


def scores_of(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Score]:
    """Each score's mean over the rows; where a row has several values, over all of them."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row["scores"].items():
            values.setdefault(name, []).extend(value if isinstance(value, list) else [value])
    return {name: mean_score(name, some, seed) for name, some in values.items()}


def _by_kind(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(row["kind"], []).append(row)
    return {kind: _json(scores_of(some, seed)) for kind, some in sorted(kinds.items())}


def _json(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: asdict(score) for name, score in scores.items()}


def compare_folders(first: Path, second: Path, seed: int = 0) -> dict[str, dict[str, Comparison]]:
    """{suite: {score: comparison}} for what both folders have, question by question.

    Raises:
        InputError: they have no suite in common, or put other questions under one name.
        ArtifactError: a folder without results.
    """
    one, two = read_json(first / RESULTS), read_json(second / RESULTS)
    shared = [name for name in one["suites"] if name in two["suites"]]
    if not shared:
        raise InputError(
            f"{first} has {', '.join(one['suites'])} and {second} has {', '.join(two['suites'])}: nothing in common.",
            hint="Evaluate both models on the same files.",
        )
    found: dict[str, dict[str, Comparison]] = {}
    for name in shared:
        if one["questions"][name] != two["questions"][name]:
            raise InputError(
                f"{first} and {second} put other questions under the name {name}.",
                hint="Use the same file, --limit and --shots for both.",
            )
        rows = [list(MetricsLog(samples_path(folder, name)).read()) for folder in (first, second)]
        scores = [score for score in rows[0][0]["scores"] if score in rows[1][0]["scores"]]
        found[name] = {}
        for score in scores:
            one_values, two_values = ([_value(row, score) for row in some] for some in rows)
            found[name][score] = compare(one_values, two_values, seed)
    return found


def _value(row: Mapping[str, Any], score: str) -> float:
    """A row's score; of several values their mean, for a question's values are not independent."""
    value = row["scores"][score]
    return sum(value) / len(value) if isinstance(value, list) else value
