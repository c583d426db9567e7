"""Public question files as suites: each format's columns, and the prompt that its papers and lm-evaluation-harness use.

    mmlu        question, choices, answer (0 to 3 or A to D), subject; CSV: question, A, B, C, D, answer without header
    arc         question, choices {text, label}, answerKey; OpenBookQA's question_stem too
    hellaswag   ctx_a, ctx_b, activity_label, endings, label
    choice      question or context, choices, answer (its place, its letter or its text): any other multiple choice
    gsm8k       question, answer with "#### number" at its end
    mgsm        question, answer_number (or answer); TSV: question, number
    ifeval      prompt, instruction_id_list, kwargs
    humaneval   prompt, test, entry_point
    mbpp        text or prompt, test_list, test_setup_code or test_imports
    bfcl        question, function, ground_truth (or a file of the same name in possible_answer/)

Left out: fetching them. The questions are the user's local files.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.base.errors import ConfigError, InputError, near
from puna.core.verdict import Task
from puna.evals.suites import Measure, Suite
from puna.evals.tables import Row, json_of, read_rows, text_of

_MMLU_COLUMNS = ("question", "A", "B", "C", "D", "answer")
_STOP = ("Question:", "</s>", "<|im_end|>")


def read_suite(path: Path | str, format: str = "", examples: Path | str | None = None) -> Suite:
    """Reads a file of questions.

    Args:
        path: of the file.
        format: one of `FORMATS`; "" finds it by the columns.
        examples: a file of the same format whose questions are shown as examples.

    Raises:
        InputError: rows of no known format, or a row that lacks what its format needs.
        ConfigError: an unknown format.
        ArtifactError: a file that is missing or damaged.
    """
    path = Path(path)
    if format and format not in FORMATS:
        raise ConfigError(f"There is no format {format!r} of questions.", hint=near(format, FORMATS))
    rows = _rows(path, format)
    format = format or detect(rows[0], path)
    measure, make, max_tokens, stop = FORMATS[format]
    tasks = tuple(make(row, i, path) for i, row in enumerate(rows))
    shown = read_suite(examples, format).tasks if examples else ()
    return Suite(path.stem, measure, tasks, shown, max_tokens, stop)


def _rows(path: Path, format: str) -> list[Row]:
    if format == "mgsm" and path.suffix.lower() == ".tsv":
        return read_rows(path, ("question", "answer"))
    rows = read_rows(path)
    if set(rows[0]) == set("012345") and format in ("", "mmlu"):
        return [dict(zip(_MMLU_COLUMNS, row.values(), strict=True)) for row in rows]
    if set(rows[0]) == {"0", "1"} and format == "":
        return read_rows(path, ("question", "answer"))
    return rows


def detect(row: Mapping[str, Any], path: Path | str) -> str:
    """The format whose columns a row has."""
    for format, columns in _SIGNS:
        if all(any(name in row for name in column.split("|")) for column in columns):
            if format == "gsm8k" and "####" not in str(row["answer"]):
                return "mgsm"
            return format
    raise InputError(
        f"{path} has the columns {', '.join(map(str, row))}, which no known format has.",
        hint=f"Say which it is with --task FORMAT=FILE: {', '.join(FORMATS)}.",
    )


def _mmlu(row: Row, number: int, path: Path) -> Task:
    choices = json_of(row, "choices") if "choices" in row else [row.get(letter) for letter in "ABCD"]
    if not isinstance(choices, list) or not 2 <= len(choices) <= 26:
        raise InputError(f"{path}, question {number + 1}: the choices are {choices!r}; 2 to 26 texts are needed.")
    letters = string.ascii_uppercase[: len(choices)]
    gold = _place(row.get("answer"), letters, [str(choice) for choice in choices], path, number)
    listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True))
    subject = str(row.get("subject") or re.sub(r"_(dev|test|val)$", "", path.stem))
    about = subject.replace("_", " ")
    return Task(
        _id(row, number),
        f"{text_of(row, 'question', path).strip()}{listed}\nAnswer:",
        letters[gold],
        subject,
        {
            "choices": list(letters),
            "gold": gold,
            "header": f"The following are multiple choice questions (with answers) about {about}.\n\n",
        },
    )


def _arc(row: Row, number: int, path: Path) -> Task:
    question = row.get("question", row.get("question_stem"))
    choices = json_of(row, "choices")
    if isinstance(question, dict):  # the original release nests them: {"stem", "choices": [{"text", "label"}]}
        question, choices = question.get("stem"), question.get("choices")
    if isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
        choices = {key: [choice.get(key) for choice in choices] for key in ("text", "label")}
    if not isinstance(question, str) or not isinstance(choices, dict) or not {"text", "label"} <= set(choices):
        raise InputError(f"{path}, question {number + 1}: {row!r} is not a question with choices of text and label.")
    texts, labels = [str(text) for text in choices["text"]], [str(label) for label in choices["label"]]
    gold = _place(row.get("answerKey"), labels, texts, path, number)
    return Task(_id(row, number), f"Question: {question}\nAnswer:", texts[gold], meta={"choices": texts, "gold": gold})


def _hellaswag(row: Row, number: int, path: Path) -> Task:
    endings = json_of(row, "endings")
    if not isinstance(endings, list) or len(endings) < 2:
        raise InputError(f"{path}, question {number + 1}: the endings are {endings!r}; at least 2 are needed.")
    context = f"{text_of(row, 'ctx_a', path)} {text_of(row, 'ctx_b', path).capitalize()}"
    choices = [_unwiki(str(ending)) for ending in endings]
    gold = _place(row.get("label"), [str(i) for i in range(len(choices))], choices, path, number)
    prompt = _unwiki(f"{text_of(row, 'activity_label', path)}: {context}")
    return Task(_id(row, number), prompt, choices[gold], meta={"choices": choices, "gold": gold})


def _unwiki(text: str) -> str:
    """WikiHow's marks taken out: "[title]" ends a sentence, and what else is in brackets goes."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _choice(row: Row, number: int, path: Path) -> Task:
    choices = json_of(row, "choices")
    if not isinstance(choices, list) or len(choices) < 2:
        raise InputError(f"{path}, question {number + 1}: the choices are {choices!r}; at least 2 are needed.")
    texts = [str(choice) for choice in choices]
    gold = _place(row.get("answer", row.get("label")), string.ascii_uppercase[: len(texts)], texts, path, number)
    meta = {"choices": texts, "gold": gold}
    if "question" in row:
        return Task(_id(row, number), f"Question: {text_of(row, 'question', path)}\nAnswer:", texts[gold], meta=meta)
    return Task(_id(row, number), text_of(row, "context", path), texts[gold], meta=meta)


def _place(answer: Any, labels: Sequence[str], texts: Sequence[str], path: Path, number: int) -> int:
    """Where the right choice stands, from its place, its label or its text."""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(texts):
        return answer
    said = str(answer).strip()
    for names in (labels, [str(i) for i in range(len(texts))], texts):
        if said in names:
            return list(names).index(said)
    raise InputError(f"{path}, question {number + 1}: the answer is {answer!r}; it must be one of {', '.join(labels)}.")


def _gsm8k(row: Row, number: int, path: Path) -> Task:
    answer = text_of(row, "answer", path)
    if "####" not in answer:
        raise InputError(f"{path}, question {number + 1}: the answer {answer!r} has no '#### number' at its end.")
    return Task(_id(row, number), f"Question: {text_of(row, 'question', path)}\nAnswer:", answer)


def _mgsm(row: Row, number: int, path: Path) -> Task:
    name = "answer" if row.get("answer_number") is None else "answer_number"
    answer = str(row.get(name)).strip()
    if not re.fullmatch(r"-?[\d,.]+", answer):
        raise InputError(f"{path}, question {number + 1}: {name} is {row.get(name)!r}; it must be a number.")
    return Task(_id(row, number), f"Question: {text_of(row, 'question', path)}\nAnswer:", answer)


def _ifeval(row: Row, number: int, path: Path) -> Task:
    ids, kwargs = json_of(row, "instruction_id_list"), json_of(row, "kwargs")
    if not isinstance(ids, list) or not isinstance(kwargs, list) or len(ids) != len(kwargs):
        raise InputError(f"{path}, question {number + 1}: instruction_id_list and kwargs must be lists of one length.")
    given = [{key: value for key, value in (one or {}).items() if value is not None} for one in kwargs]
    wanted = [{"id": id, "kwargs": one} for id, one in zip(ids, given, strict=True)]
    return Task(_id(row, number), text_of(row, "prompt", path), "", meta={"instructions": wanted})


def _humaneval(row: Row, number: int, path: Path) -> Task:
    prompt, entry = text_of(row, "prompt", path), text_of(row, "entry_point", path)
    test = f"{text_of(row, 'test', path)}\ncheck({entry})\n"
    meta = {"prefix": prompt, "test": test, "entry_point": entry}
    return Task(_id(row, number), prompt, str(row.get("canonical_solution", "")), meta=meta)


def _mbpp(row: Row, number: int, path: Path) -> Task:
    tests = json_of(row, "test_list")
    if not isinstance(tests, list) or not tests:
        raise InputError(f"{path}, question {number + 1}: test_list is {tests!r}; it must list assertions.")
    setup = row.get("test_setup_code") or "\n".join(json_of(row, "test_imports") or ())
    asked = text_of(row, "text" if "text" in row else "prompt", path)
    prompt = (
        f"You are an expert Python programmer, and here is your task: {asked} "
        f"Your code should pass these tests:\n\n" + "\n".join(tests) + "\n"
    )
    return Task(_id(row, number), prompt, str(row.get("code", "")), meta={"test": "\n".join([setup, *tests]) + "\n"})


def _bfcl(row: Row, number: int, path: Path) -> Task:
    functions, question = json_of(row, "function"), json_of(row, "question")
    functions = functions if isinstance(functions, list) else [functions]
    if question and isinstance(question, list) and isinstance(question[0], list):
        if len(question) > 1:
            raise InputError(
                f"{path}, question {number + 1}: it has {len(question)} turns; questions of one turn are read."
            )
        question = question[0]
    expected = json_of(row, "ground_truth")
    expected = _answers_beside(path).get(_id(row, number)) if expected is None else expected
    if expected is None:
        raise InputError(
            f"{path}, question {number + 1}: there is no ground_truth.",
            hint="Put the file of the same name into a folder possible_answer beside it.",
        )
    messages = question if isinstance(question, list) else [{"role": "user", "content": str(question)}]
    meta = {"tools": [_tool(one) for one in functions], "expected": expected, "messages": messages}
    return Task(_id(row, number), str(messages[-1]["content"]), "", path.stem, meta)


def _answers_beside(path: Path) -> Mapping[str, Any]:
    beside = path.parent / "possible_answer" / path.name
    return {str(row["id"]): row.get("ground_truth") for row in read_rows(beside)} if beside.exists() else {}


def _tool(function: Any) -> Mapping[str, Any]:
    """OpenAI's form of a function whose JSON schema has Python's names of types, as the leaderboard's files have."""
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InputError(f"a function is {function!r}; it must be an object with a name.")
    return {"type": "function", "function": {**function, "parameters": _schema(function.get("parameters") or {})}}


_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}


def _schema(value: Any) -> Any:
    if isinstance(value, list):
        return [_schema(one) for one in value]
    if not isinstance(value, dict):
        return value
    type = value.get("type")
    made = {key: _schema(one) for key, one in value.items()}
    return {**made, "type": _TYPES.get(type, type)} if isinstance(type, str) else made


def _id(row: Row, number: int) -> str:
    for name in ("id", "task_id", "key", "ind"):
        if row.get(name) not in (None, ""):
            return str(row[name])
    return str(number)


Make = Callable[[Row, int, Path], Task]
# format -> (measure, a row as a task, tokens of an answer, texts that end one)
FORMATS: dict[str, tuple[Measure, Make, int, tuple[str, ...]]] = {
    "mmlu": ("choice", _mmlu, 16, ()),
    "arc": ("choice", _arc, 16, ()),
    "hellaswag": ("choice", _hellaswag, 16, ()),
    "choice": ("choice", _choice, 16, ()),
    "gsm8k": ("number", _gsm8k, 1024, _STOP),
    "mgsm": ("number", _mgsm, 1024, _STOP),
    "ifeval": ("instructions", _ifeval, 1280, ()),
    "humaneval": ("code", _humaneval, 1024, ("\nclass", "\ndef", "\n#", "\nif", "\nprint")),
    "mbpp": ("code", _mbpp, 1024, ("[DONE]",)),
    "bfcl": ("calls", _bfcl, 512, ()),
}
# The columns by which a format is known, the most particular first; "a|b" is either.
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ifeval", ("prompt", "instruction_id_list", "kwargs")),
    ("humaneval", ("prompt", "test", "entry_point")),
    ("mbpp", ("text|prompt", "test_list")),
    ("bfcl", ("question", "function")),
    ("hellaswag", ("ctx_a", "ctx_b", "endings")),
    ("arc", ("question|question_stem", "answerKey")),
    ("mmlu", ("question", "choices", "subject")),
    ("mmlu", ("question", "A", "B", "C", "D", "answer")),
    ("choice", ("question|context", "choices", "answer|label")),
    ("mgsm", ("question", "answer_number")),
    ("gsm8k", ("question", "answer")),
)
