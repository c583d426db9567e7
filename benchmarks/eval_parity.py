"""Does our evaluation decide as lm-evaluation-harness does, sample by sample?

Both read the same local files and the same small model of random weights, in Hugging Face's layout. Multiple choice
compares log-likelihoods and choices; GSM8K compares answers that the model writes, and the numbers found in answers
that are made of right and wrong solutions; IFEval compares instructions on such answers; bits compares whole texts.
Two of IFEval's instructions are left out: the harness needs a sentence splitter that it would fetch. Of the others,
those about English in one case may differ: the harness's detector of languages takes capitals for another language.

The harness runs in an environment of its own: PUNA_LM_EVAL_PYTHON names its Python (pip install lm-eval langdetect
immutabledict nltk). The questions are made of the data in ../shared/data.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.base.files import read_jsonl, write_jsonl
from puna.core.document import Document
from puna.engine.local import LocalModel
from puna.evals.bits import bits_per_byte
from puna.evals.choices import TokenLikelihood
from puna.evals.formats import read_suite
from puna.evals.harness import HarnessConfig, Subject, evaluate, samples_path
from puna.evals.instructions import CHECKS
from puna.evals.suites import Suite
from puna.testing import ScriptedChatModel, tiny_checkpoint

OVERRIDE = "PUNA_LM_EVAL_PYTHON"
SHARED = Path(__file__).parents[1].parent / "shared/data"
CONTEXT = 4096
TOLERANCE = 1e-3  # nats: two programs add float32 in another order
IFEVAL_LEAST = 0.98  # of instructions; see above
LEFT_OUT = ("length_constraints:number_sentences", "change_case:capital_word_frequency")

Row = dict[str, Any]


def write_files(folder: Path, count: int) -> None:
    """The model and the questions; examples come from rows that are not asked."""
    tiny_checkpoint(folder / "model", max_position_embeddings=CONTEXT)
    draw = random.Random(0)
    rows = list(read_jsonl(SHARED / "gsm8k/train.jsonl"))
    for name, make in (("arc", arc), ("mmlu", mmlu), ("hellaswag", hellaswag)):
        made = [make(row, i, draw) for i, row in enumerate(rows[: count + 8])]
        write_jsonl(folder / f"{name}-examples.jsonl", made[:8])
        write_jsonl(folder / f"{name}.jsonl", made[8:])
    made = languages(count + 1, draw)
    write_jsonl(folder / "languages-examples.jsonl", made[:1])
    write_jsonl(folder / "languages.jsonl", made[1:])
    for name in ("gsm8k", "replies"):
        write_jsonl(folder / f"{name}-examples.jsonl", rows[:4])
    write_jsonl(folder / "gsm8k.jsonl", rows[8 : 8 + count // 4])
    write_jsonl(folder / "replies.jsonl", ({**row, "reply": reply(row, draw)} for row in rows[8 : 8 + 5 * count]))
    write_jsonl(folder / "ifeval.jsonl", (ifeval(rows[i], i, draw) for i in range(5 * count)))
    write_jsonl(folder / "bits.jsonl", ({"text": row["question"]} for row in rows[:count]))


def number_of(row: Row) -> int:
    return int(row["answer"].split("####")[1].replace(",", ""))


def four(row: Row, draw: random.Random) -> tuple[list[str], int]:
    """The right number among four."""
    right = number_of(row)
    choices = [str(right), str(right + draw.randint(1, 9)), str(2 * right + 10), str(right * 10 + 3)]
    draw.shuffle(choices)
    return choices, choices.index(str(right))


def arc(row: Row, number: int, draw: random.Random) -> Row:
    texts, gold = four(row, draw)
    choices = {"text": [f"It is {text}" for text in texts], "label": list("ABCD")}
    return {"id": str(number), "question": row["question"], "choices": choices, "answerKey": "ABCD"[gold]}


def mmlu(row: Row, number: int, draw: random.Random) -> Row:
    del number
    choices, gold = four(row, draw)
    return {"question": f" {row['question']} ", "subject": "abstract_algebra", "choices": choices, "answer": gold}


def hellaswag(row: Row, number: int, draw: random.Random) -> Row:
    sentences = re.split(r"(?<=\.) ", row["question"])
    endings = [sentences[-1], *(f"The {word} [title] is {draw.randint(2, 99)}." for word in ("sum", "price", "answer"))]
    order = draw.sample(range(4), 4)
    context = {"activity_label": "Sums", "ctx_a": sentences[0], "ctx_b": " ".join(sentences[1:-1])}
    return {"ind": number, **context, "endings": [endings[i] for i in order], "label": str(order.index(0))}


def languages(count: int, draw: random.Random) -> list[Row]:
    """The next paragraph of the declaration of human rights among others, in languages of many scripts."""
    pages = sorted((SHARED / "udhr").glob("*.html"))
    rows = []
    for number in range(count):
        markup = pages[number % len(pages)].read_text(encoding="utf-8")
        parts = [re.sub(r"<[^>]+>", "", part) for part in re.findall(r"<p[^>]*>(.*?)</p>", markup, re.DOTALL)]
        parts = [" ".join(part.split())[:150].strip() for part in parts if len(part.split()) > 3 or len(part) > 30]
        place = draw.randrange(len(parts) - 5)
        texts = [parts[place + 1], *draw.sample([p for i, p in enumerate(parts) if i != place + 1], 3)]
        choices = {"text": texts, "label": list("ABCD")}
        rows.append({"id": str(number), "question": parts[place], "choices": choices, "answerKey": "A"})
    return rows


def reply(row: Row, draw: random.Random) -> str:
    """A solution as models give it: right or wrong, with or without the mark."""
    number = number_of(row) + draw.choice((0, 0, 1))
    shown = draw.choice((f"{number:,}", str(number), f"${number}", f"{number}.00", f"-{number}"))
    work = row["answer"].split("####")[0]
    forms = (
        f"{work}#### {shown}",
        f"{work}The answer is {shown}.",
        f"#### {shown}\n{work}",
        f"{work}#### {shown}.",
        work,
    )
    return draw.choice(forms)


def ifeval(row: Row, number: int, draw: random.Random) -> Row:
    """An instruction of each kind in turn, and an answer that follows it about half the time."""
    ids = sorted(set(CHECKS) - set(LEFT_OUT))
    id = ids[number % len(ids)]
    text = re.sub(r"<<.*?>>", "", row["answer"].split("####")[0]).strip()
    kwargs, answer = dressed(id, text, row, draw)
    if draw.random() < 0.3:
        answer = draw.choice(("Sure!\n{}", "{}\nI hope this helps.", "**{}**", "Here it is:\n\n{}\nDone.")).format(
            answer
        )
    return {"key": number, "prompt": row["question"], "instruction_id_list": [id], "kwargs": [kwargs], "answer": answer}


def dressed(id: str, text: str, row: Row, draw: random.Random) -> tuple[Row, str]:
    """The arguments of an instruction, and a text that may or may not follow it."""
    words = re.findall(r"[A-Za-z]+", text) or ["none"]
    word, count = draw.choice(words), draw.randint(1, 4)
    relation = draw.choice(("at least", "less than"))
    parts = [part for part in text.split("\n") if part] or [text]
    name = id.split(":")[1]
    cases: dict[str, tuple[Row, str]] = {
        "existence": ({"keywords": [word, draw.choice([*words, "zebra"])]}, text),
        "frequency": ({"keyword": word, "frequency": count, "relation": relation}, text),
        "forbidden_words": ({"forbidden_words": [draw.choice((word, "zebra")), "quagga"]}, text),
        "letter_frequency": ({"letter": word[0].lower(), "let_frequency": 4 * count, "let_relation": relation}, text),
        "response_language": ({"language": draw.choice(("en", "de", "fr"))}, row["question"]),
        "number_paragraphs": ({"num_paragraphs": count}, "\n***\n".join(parts[:3])),
        "number_words": ({"num_words": 10 * count, "relation": relation}, text),
        "nth_paragraph_first_word": (
            {
                "num_paragraphs": len(parts[:3]),
                "nth_paragraph": 1,
                "first_word": draw.choice((words[0].lower(), "the")),
            },
            "\n\n".join(parts[:3]),
        ),
        "number_placeholders": ({"num_placeholders": count}, f"[a] {text} [b c]"),
        "postscript": (
            {"postscript_marker": draw.choice(("P.S.", "P.P.S"))},
            f"{text}\n\n{draw.choice(('P.S.', 'P. S.', 'P.P.S', 'PS'))} Check it.",
        ),
        "number_bullet_lists": ({"num_bullets": count}, "\n".join(f"{draw.choice('*-')} {part}" for part in parts)),
        "constrained_response": ({}, f"{text} {draw.choice(('My answer is yes.', 'My answer is no', 'Maybe.'))}"),
        "number_highlighted_sections": ({"num_highlights": count}, f"*{parts[0]}* and **{word}** and *x* * *"),
        "multiple_sections": (
            {"section_spliter": draw.choice(("Section", "SECTION")), "num_sections": count},
            "\n".join(f"Section {i + 1}\n{part}" for i, part in enumerate(parts)),
        ),
        "json_format": (
            {},
            draw.choice(("```json\n{}\n```", "{}")).format(json.dumps({"a": text})[: draw.choice((None, 9))]),
        ),
        "title": ({}, draw.choice(("<<{}>>\n", "<{}>\n", "<< >>{}")).format(word) + text),
        "two_responses": (
            {},
            draw.choice(("{}******{}", "{}******{}******", "{}***{}")).format(text, draw.choice((text, word))),
        ),
        "repeat_prompt": ({"prompt_to_repeat": row["question"]}, draw.choice((row["question"].upper(), "")) + text),
        "end_checker": ({"end_phrase": draw.choice((parts[-1][-12:], "The end."))}, f'"{text}"'),
        "quotation": ({}, draw.choice(('"{}"', '"{}', "{}")).format(text)),
        "english_capital": ({}, draw.choice((row["question"].upper(), row["question"]))),
        "english_lowercase": ({}, draw.choice((row["question"].lower(), row["question"]))),
        "no_comma": ({}, draw.choice((text, text.replace(",", "")))),
    }
    return cases[name]


def ours(folder: Path) -> dict[str, Any]:
    """The same by Puna's harness."""
    model = LocalModel.load(folder / "model", device="cpu")
    likelihood = TokenLikelihood(model, lambda text: model.tokenizer.encode(text, bos=True), CONTEXT)
    subject = Subject("model", model, likelihood, model.generate)
    found: dict[str, Any] = {}
    for name, file, shots in (
        ("arc", "arc", 0),
        ("arc, 5 shots", "arc", 5),
        ("mmlu, 5 shots", "mmlu", 5),
        ("hellaswag", "hellaswag", 0),
        ("languages", "languages", 0),
        ("gsm8k, 2 shots", "gsm8k", 2),
    ):
        suite = read_suite(folder / f"{file}.jsonl", examples=folder / f"{file}-examples.jsonl")
        suite = Suite(suite.name, suite.measure, suite.tasks, suite.examples, 48, suite.stop)
        found[name] = rows_of(subject, suite, folder / f"ours-{name}", shots)
    replies = [row["reply"] for row in read_jsonl(folder / "replies.jsonl")]
    suite = read_suite(folder / "replies.jsonl", "gsm8k")
    found["gsm8k, replies"] = rows_of(Subject("replies", ScriptedChatModel(replies)), suite, folder / "ours-replies", 0)
    answers = [row["answer"] for row in read_jsonl(folder / "ifeval.jsonl")]
    suite = read_suite(folder / "ifeval.jsonl")
    found["ifeval"] = rows_of(Subject("answers", ScriptedChatModel(answers)), suite, folder / "ours-ifeval", 0)
    found["bits"] = [
        bits_per_byte(model, likelihood.encode, [Document(row["text"], id="")], CONTEXT).bits
        for row in read_jsonl(folder / "bits.jsonl")
    ]
    return found


def rows_of(subject: Subject, suite: Suite, folder: Path, shots: int) -> list[Row]:
    evaluate(subject, [suite], HarnessConfig(shots, plain=subject.generate is not None), folder)
    return list(read_jsonl(samples_path(folder, suite.name)))


def disagreements(name: str, mine: Sequence[Any], theirs: Sequence[Any]) -> list[str]:
    """What differs, sample by sample."""
    if len(mine) != len(theirs):
        return [f"{len(mine)} samples, {len(theirs)} by the harness"]
    return [text for i, pair in enumerate(zip(mine, theirs, strict=True)) if (text := differs(name, *pair, i))]


def differs(name: str, row: Any, other: Any, number: int) -> str:
    if name == "bits":
        bits = -other / 0.6931471805599453
        return "" if abs(row - bits) <= TOLERANCE * 2 else f"{number}: {row} bits, {bits}"
    scores: Mapping[str, Any] = row["scores"]
    if name == "ifeval":
        pair = [bool(scores["instruction_strict"][0]), bool(scores["instruction_loose"][0])]
        told = [other["strict"][0], other["loose"][0]]
        return "" if pair == told else f"{number}: {row['found']['instructions'][0]}: {pair}, {told}: {row['answer']!r}"
    if name.startswith("gsm8k"):
        same = row["answer"] == other["answer"] and all(scores[key] == other[key] for key in ("strict", "flexible"))
        return "" if same else f"{number}: {row['answer']!r} {scores}, {other}"
    apart = max(abs(a - b) for a, b in zip(row["found"]["logprobs"], other["logprobs"], strict=True))
    same = scores["acc"] == other["acc"] and scores["acc_norm"] == other["acc_norm"] and apart <= TOLERANCE
    return "" if same else f"{number}: {scores} {row['found']['logprobs']}, {other}"


def measure(python: str, folder: Path, count: int) -> dict[str, Any]:
    """{"version", "tasks": {name: {"samples", "agree", "differ"}}}."""
    write_files(folder, count)
    script = Path(__file__).parent / "eval_reference.py"
    done = subprocess.run([python, str(script), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{python} {script} failed:\n{done.stderr[-4000:]}")
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    tasks = {}
    for name, rows in ours(folder).items():
        differ = disagreements(name, rows, reference["results"][name])
        tasks[name] = {"samples": len(rows), "agree": len(rows) - len(differ), "differ": differ}
    return {"version": reference["version"], "tasks": tasks}


def main() -> None:
    python = os.environ.get(OVERRIDE, "")
    if not python:
        sys.exit(f"{OVERRIDE} names no Python that has lm_eval.")
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(python, Path(temporary), 60)
    print(f"lm_eval {found['version']}; samples on which every score and choice is the same\n")
    for name, one in found["tasks"].items():
        print(f"{name:16}{one['agree']:6} of {one['samples']}")
        for text in one["differ"][:5]:
            print(f"    {text[:300]}")
    shares = {name: one["agree"] / one["samples"] for name, one in found["tasks"].items()}
    ratios = {name: round(share, 4) for name, share in shares.items()}
    kept = all(share == 1.0 or (name == "ifeval" and share >= IFEVAL_LEAST) for name, share in shares.items())
    limit = {"least": {"ifeval": IFEVAL_LEAST, "others": 1.0}, "kept": kept}
    question = "share of samples on which lm-evaluation-harness decides alike"
    print(json.dumps({"question": question, "ours": ratios, "rival": f"lm_eval {found['version']}", "limit": limit}))


if __name__ == "__main__":
    main()
