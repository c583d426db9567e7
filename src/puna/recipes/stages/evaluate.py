"""Evaluation: bits per byte of the held-out text beside xz, and answers to held-out questions, after each stage.

Where the run has a reader, its quotations are scored on the same questions: asked with the passage, as the models are,
and asked of all documents, beside the first sentence of the passage that BM25 puts first. Where it has an encoder, the
look-up is scored too, by words, by vectors and by both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from puna.base.card import Card
from puna.base.files import write_json, write_jsonl
from puna.core.chat import Message
from puna.core.completion import SamplingParams
from puna.core.document import Document
from puna.core.verdict import Task
from puna.data import corpus
from puna.data.conversations import UNANSWERABLE
from puna.data.questions.sentence import first_sentence
from puna.engine.local import LocalModel
from puna.evals.answers import AnswerScores, ask, score
from puna.evals.bits import bits_per_byte
from puna.evals.compression import xz_bits
from puna.knowledge.chunk import Passage, chunk
from puna.knowledge.grounding import NOT_IN_TEXT
from puna.knowledge.hybrid import PassageVectors
from puna.knowledge.index import PassageIndex
from puna.reader.ranker import Ranker
from puna.reader.reading import CitedAnswer, Reader
from puna.recipes.reading import CHOICE, ENCODER, VECTORS, lookup_in, open_encoder, passages_of, vector_weight
from puna.recipes.run_folder import CHECKPOINT
from puna.recipes.runner import StageContext
from puna.recipes.stages.encoder import measure, questions_of_tasks, rank_both, unambiguous
from puna.recipes.stages.questions import load_tasks
from puna.recipes.stages.reader import RANKER
from puna.recipes.stages.split import HELD_OUT, TRAIN

SCORES = "scores.json"


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """What is measured.

    Attributes:
        tasks: held-out questions that are asked, at most.
        max_answer_tokens: an answer is cut off here.
        samples: texts that the pre-trained model writes for the report.
        sample_tokens: their length.
        max_bytes: held-out text that is scored, at most.
        context_length: tokens of a window of that text; 0 for the longest of the pre-training.
        dtype: of the weights.
    """

    tasks: int = 300
    max_answer_tokens: int = 96
    samples: int = 3
    sample_tokens: int = 120
    max_bytes: int = 4_000_000
    context_length: int = 0
    dtype: str = "float32"


def evaluate(context: StageContext, models: Sequence[str], config: EvaluateConfig, device: str) -> Mapping[str, Any]:
    """Scores the checkpoints of the named stages on what none of them has seen."""
    train = corpus.read(context.inputs["split"] / TRAIN)
    held_out = _limited(corpus.read(context.inputs["split"] / HELD_OUT), config.max_bytes)
    tasks = load_tasks(context)[: config.tasks]
    scores: dict[str, Any] = {"stages": {}}
    if held_out:
        context.progress.say("compressing the same text with xz -9e")
        scores["xz"] = asdict(xz_bits(train, held_out))
    for name in models:
        model = LocalModel.load(context.inputs[name] / CHECKPOINT, config.dtype, device)
        scores["stages"][name] = _score(context, name, model, held_out, tasks, config)
    if "reader" in context.inputs and (context.inputs["reader"] / RANKER).exists():
        scores["cited"] = _cited(context, tasks)
    if "encoder" in context.inputs and (context.inputs["encoder"] / CHOICE).exists():
        scores["retrieval"] = _retrieval(context, device)
    write_json(context.folder / SCORES, scores)
    return _summary(scores)


def _score(
    context: StageContext,
    name: str,
    model: LocalModel,
    held_out: Sequence[Document],
    tasks: Sequence[Task],
    config: EvaluateConfig,
) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    if held_out:
        total = sum(len(model.tokenizer.encode(document.text)) for document in held_out)
        with context.progress.task(f"bits, {name}", total, "tokens") as bar:
            measured = bits_per_byte(
                model,
                lambda text: model.tokenizer.encode(text, bos=True),
                held_out,
                config.context_length or model.config.max_position_embeddings,
                bar.advance,
            )
        scores["bits_per_byte"] = asdict(measured)
        scores["samples"] = _samples(model, held_out[: config.samples], config)
    asked = [task for task in tasks if _fits(model, task, config)]
    scores["too_long"] = len(tasks) - len(asked)
    if asked:
        started = time.monotonic()
        answers = ask(model, asked, SamplingParams(temperature=0, max_tokens=config.max_answer_tokens))
        write_jsonl(context.folder / f"answers-{name}.jsonl", (sample.to_json() for sample in answers.samples))
        context.progress.say(
            f"{name}: {answers.exact.value:.1%} of {answers.exact.count} held-out answers exact, "
            f"token F1 {answers.f1.value:.3f}, {time.monotonic() - started:.0f} s"
        )
        scores |= _as_json(answers)
    return scores


def _as_json(answers: AnswerScores) -> dict[str, Any]:
    by_kind = {kind: asdict(one) for kind, one in answers.by_kind.items()}
    return {"exact_match": asdict(answers.exact), "token_f1": asdict(answers.f1), "by_kind": by_kind}


def _cited(context: StageContext, tasks: Sequence[Task]) -> dict[str, Any]:
    """The reader's quotations: from the passage that a question is asked with, and from all documents.

    Of all documents only what they answer is asked: a question that one passage does not answer another may.
    """
    documents = corpus.read(context.inputs["split"] / HELD_OUT)
    chars = int(Card.read(context.inputs["questions"]).config["built"]["passage_chars"])
    passages: dict[str, list[Passage]] = {document.id: chunk(document, chars) for document in documents}
    index = PassageIndex(context.inputs["index"] / "passages")
    ranker = Ranker.load(context.inputs["reader"] / RANKER)
    encoder = context.inputs.get("encoder", context.run_folder / ENCODER)
    lookup = lookup_in(context.inputs["index"] / "passages", encoder, vector_weight(encoder, quoting=True))
    reader = Reader(None, lookup, ranker)
    given = [(task, passages_of(task, passages.get(str(task.meta.get("document_id")), []))) for task in tasks]
    given = [(task, shown) for task, shown in given if shown]
    quoted = [reader.read(str(task.meta["question"]), shown) for task, shown in given]
    answerable = [task for task, _ in given if task.kind != UNANSWERABLE]
    questions = [str(task.meta["question"]) for task in answerable]
    looked_up = [reader.answer(question) for question in questions]
    firsts = [_first_sentence(index, question) for question in questions]
    told = {
        "given": score([task for task, _ in given], [answer.text for answer in quoted]),
        "looked_up": score(answerable, [answer.text for answer in looked_up]),
        "first_sentence": score(answerable, firsts),
    }
    rows = zip(told["given"].samples, quoted, strict=True)
    write_jsonl(context.folder / "answers-cited.jsonl", ({**s.to_json(), **_citation(a)} for s, a in rows))
    best, beside = told["looked_up"], told["first_sentence"]
    context.progress.say(
        f"quoted: {told['given'].exact.value:.1%} of {told['given'].exact.count} held-out answers exact, token F1 "
        f"{told['given'].f1.value:.3f}; from all documents {best.exact.value:.1%} and {best.f1.value:.3f} "
        f"(BM25's first sentence: {beside.exact.value:.1%} and {beside.f1.value:.3f})"
    )
    return {name: _as_json(answers) for name, answers in told.items()}


def _retrieval(context: StageContext, device: str) -> dict[str, Any]:
    """The passage that answers a held-out question, looked up among all by words, by vectors and by both."""
    index, folder = PassageIndex(context.inputs["index"] / "passages"), context.inputs["encoder"]
    numbers = {(p.document_id, p.start, p.end): number for number, (p, _) in enumerate(index.titled())}
    asked = unambiguous(questions_of_tasks(load_tasks(context), numbers))
    rankings = rank_both(index, PassageVectors.load(folder / VECTORS), open_encoder(folder, device), asked)
    weight = vector_weight(folder)
    figures = {name: asdict(one) for name, one in measure(rankings, asked, weight).items()}
    context.progress.say(
        f"looked up: recall@10 and nDCG@10 of {len(asked)} held-out questions "
        + ", ".join(f"{name} {one['recall']:.3f} {one['ndcg']:.3f}" for name, one in figures.items())
    )
    return {"weight": weight, **figures}


def _citation(answer: CitedAnswer) -> dict[str, Any]:
    return {"span": [[span.start, span.end] for span in answer.spans], "confidence": round(answer.confidence, 4)}


def _first_sentence(index: PassageIndex, question: str) -> str:
    """What one gets without a model: the first sentence, else the first line, of the passage that is found first."""
    for passage, _ in index.search(question, 1):
        text = passage.text.strip()
        sentence = first_sentence(text, 0, len(text))
        return text[slice(*sentence)] if sentence else text.split("\n", 1)[0]
    return NOT_IN_TEXT


def _fits(model: LocalModel, task: Task, config: EvaluateConfig) -> bool:
    """Whether a question and its answer fit the model's context."""
    prompt = model.tokenizer.chat.render([Message("user", task.prompt)])
    return len(prompt) + config.max_answer_tokens <= model.config.max_position_embeddings


def _samples(model: LocalModel, documents: Sequence[Document], config: EvaluateConfig) -> list[dict[str, str]]:
    """What the model writes after the beginnings of held-out documents."""
    prompts = ["\n".join(document.text.splitlines()[:6])[:400] + "\n" for document in documents]
    params = SamplingParams(temperature=0.7, top_p=0.9, max_tokens=config.sample_tokens, seed=0)
    written = model.generate(prompts, params)
    return [
        {"source": document.source, "prompt": prompt, "text": completion.message.content}
        for document, prompt, completion in zip(documents, prompts, written, strict=True)
    ]


def _limited(documents: Sequence[Document], max_bytes: int) -> list[Document]:
    kept, size = [], 0
    for document in documents:
        size += len(document.text.encode())
        if kept and size > max_bytes:
            break
        kept.append(document)
    return kept


def _summary(scores: Mapping[str, Any]) -> dict[str, Any]:
    summary: dict[str, Any] = {f"xz_{key}": value for key, value in scores.get("xz", {}).items()}
    for name, measured in scores["stages"].items():
        if "bits_per_byte" in measured:
            summary[f"{name}_bits_per_byte"] = measured["bits_per_byte"]["value"]
        if "exact_match" in measured:
            summary[f"{name}_exact_match"] = measured["exact_match"]["value"]
            summary[f"{name}_token_f1"] = measured["token_f1"]["value"]
    for name, measured in scores.get("cited", {}).items():
        summary[f"cited_{name}_exact_match"] = measured["exact_match"]["value"]
        summary[f"cited_{name}_token_f1"] = measured["token_f1"]["value"]
    for name, measured in scores.get("retrieval", {}).items():
        if name != "weight":
            summary |= {f"retrieval_{name}_{figure}": measured[figure] for figure in ("recall", "ndcg")}
    return summary


def scores_path(stage_folder: Path) -> Path:
    return stage_folder / SCORES
