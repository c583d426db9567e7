"""The encoder: the run's own small model learns to find the passage that answers a question.

Its first layers are trained further on the run's training questions, each beside its passage and one that BM25 takes
for it (dense retrieval, arXiv 2004.04906). Some training documents are kept out of that: their questions choose how
much the encoder's ranking counts beside that of words, and whether it counts at all. No held-out document is learnt
from or chosen by; its passages get their vectors, since looking up is not training.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from puna.base.config import require
from puna.base.errors import CheckpointError
from puna.base.files import read_json, write_json
from puna.core.chat import Conversation
from puna.core.verdict import Task
from puna.data import corpus
from puna.data.conversations import UNANSWERABLE, read_conversations
from puna.data.pairs import Pair, PairLoader
from puna.data.shards import TokenShards, write_shards
from puna.engine.encoder import Encoder
from puna.evals.answers import exact_match
from puna.evals.retrieval import RetrievalScores, place, score
from puna.knowledge.chunk import Passage
from puna.knowledge.hybrid import POOL, PassageVectors, fuse, save_vectors
from puna.knowledge.index import PassageIndex
from puna.knowledge.search import embedded_text
from puna.model.checkpoint import Checkpoint
from puna.model.transformer import Transformer
from puna.reader.ranker import Ranker
from puna.reader.reading import Reader
from puna.recipes.reading import CHOICE, VECTORS, lookup_in, open_encoder
from puna.recipes.run_folder import CHECKPOINT
from puna.recipes.runner import StageContext
from puna.recipes.stages.questions import CONVERSATIONS
from puna.recipes.stages.reader import RANKER
from puna.recipes.stages.split import TRAIN
from puna.recipes.training import Lesson, TrainingConfig, load_for_training, teach
from puna.train.contrastive import Contrastive

TOKENS, PAIRS = "tokens", "pairs.json"
TEMPORARY = (TOKENS, PAIRS)  # of use only while the stage runs, and after it was cut off
WEIGHTS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # of the vectors' ranking, of which one is chosen
_LOOKED_AT = 20  # of BM25's best, among which are those that a question is told from
_EMBEDDED_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class EncoderConfig(TrainingConfig):
    """How a run's encoder is made. `context_length` is also how much of a passage it reads.

    Attributes:
        layers: of the run's model that it keeps, from the first; 0 for all.
        others: passages beside the right one that a question is told from, of those that BM25 finds.
        choosing: share of the training documents whose questions choose how much the vectors count.
        most_choosing: of those questions, at most.
        most_quoting: of those that the reader answers, at most.
        objective: what is minimised.
        seed: of the order and of the choices.
    """

    layers: int = 0
    others: int = 1
    choosing: float = 0.08
    most_choosing: int = 500
    most_quoting: int = 150
    objective: Contrastive = field(default_factory=lambda: Contrastive(dimensions=(64,)))
    seed: int = 0

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        require(self.layers >= 0, f"layers is {self.layers}; it must be at least 0 (0 for all).")
        require(self.others >= 0, f"others is {self.others}; it must be at least 0.")
        require(0 < self.choosing < 1, f"choosing is {self.choosing}; it must be between 0 and 1.")
        for name in ("most_choosing", "most_quoting"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1.")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, the number of the passage that answers it, and the answer."""

    question: str
    passage: int
    document_id: str
    answer: str


def make_encoder(context: StageContext, config: EncoderConfig, device: str) -> Mapping[str, Any]:
    """Trains the encoder, gives each passage its vector, and chooses how much it counts."""
    index = PassageIndex(context.inputs["index"] / "passages")
    numbered = list(index.titled())
    numbers = {(p.document_id, p.start, p.end): number for number, (p, _) in enumerate(numbered)}
    asked = unambiguous(questions_of(read_conversations(context.inputs["questions"] / CONVERSATIONS), numbers))
    learning, choosing = parted(asked, config)
    if len(learning) < 2 or not choosing:
        context.progress.say("too few training questions for an encoder: look-ups are by words alone")
        return {"pairs": len(learning)}
    checkpoint = Checkpoint.load(context.inputs["pretrain"] / CHECKPOINT)
    if checkpoint.tokenizer is None:
        raise CheckpointError("The checkpoint has no tokenizer.", hint="Put its tokenizer.json into its folder.")
    model = _first_layers(load_for_training(checkpoint, config, device), config)
    encoder = Encoder(model, checkpoint.tokenizer)
    texts = [embedded_text(passage.source, titles, passage.text) for passage, titles in numbered]
    trained = {document.id for document in corpus.read(context.inputs["split"] / TRAIN)}
    passages = [passage if passage.document_id in trained else None for passage, _ in numbered]
    shards, pairs = _pairs(context, config, learning, passages, (encoder, texts))
    loader = PairLoader(shards, pairs, config.context_length, config.batch_tokens, seed=config.seed)
    metrics = teach(context, model, Lesson("encoder", config.objective, loader, config.steps(loader.tokens)), config)
    Checkpoint.of(model, checkpoint.tokenizer).save(context.folder / CHECKPOINT)
    encoder = open_encoder(context.folder, device)
    _embed(context, encoder, texts)
    choice = {"lookup": choose(index, PassageVectors.load(context.folder / VECTORS), encoder, choosing)}
    choice["reader"] = _for_the_reader(context, choice["lookup"]["weight"], choosing[: config.most_quoting])
    write_json(context.folder / CHOICE, choice)
    context.progress.say(_told(choice))
    return metrics | {"pairs": len(loader.pairs), "epochs": metrics["tokens"] / loader.tokens, "choice": choice}


def _told(choice: Mapping[str, Any]) -> str:
    figures, quoted = choice["lookup"], choice["reader"]
    ndcg = ", ".join(f"{name} {figures[name]['ndcg']:.3f}" for name in ("words", "vectors", "hybrid"))
    used = {name: f"with weight {one['weight']}" if one["weight"] else "not" for name, one in choice.items()}
    return (
        f"encoder: nDCG@10 on {figures['words']['questions']} training questions kept aside: {ndcg}; vectors are used "
        f"{used['lookup']} in look-ups and {used['reader']} by the reader ({quoted['words']:.1%} of its answers exact "
        f"by words, {quoted['hybrid']:.1%} by both)"
    )


# Questions ------------------------------------------------------------------------------------------------------------


def questions_of(conversations: Iterable[Conversation], numbers: Mapping[tuple[str, int, int], int]) -> list[Asked]:
    """The first question of each conversation that a passage of the index answers; what follows may be a mere "it"."""
    asked = []
    for conversation in conversations:
        meta = conversation.meta
        spans = meta.get("spans")
        if not spans or spans[0] is None or "passage" not in meta:
            continue
        start, end = meta["passage"]
        number = numbers.get((str(meta["document_id"]), start, end))
        if number is not None:
            question, answer = (
                next(message.content for message in conversation.messages if message.role == role)
                for role in ("user", "assistant")
            )
            asked.append(Asked(question.rsplit("\n\n", 1)[-1], number, str(meta["document_id"]), answer))
    return asked


def questions_of_tasks(tasks: Iterable[Task], numbers: Mapping[tuple[str, int, int], int]) -> list[Asked]:
    """The held-out questions that a passage of the index answers."""
    asked = []
    for task in tasks:
        place = (str(task.meta.get("document_id")), *task.meta.get("passage", (0, 0)))
        if task.kind != UNANSWERABLE and place in numbers:
            asked.append(Asked(str(task.meta["question"]), numbers[place], place[0], task.answer))
    return asked


def unambiguous(asked: Sequence[Asked]) -> list[Asked]:
    """Those that are asked of one passage alone, each once."""
    found: dict[str, dict[int, Asked]] = {}
    for one in asked:
        found.setdefault(one.question, {}).setdefault(one.passage, one)
    return [only for places in found.values() if len(places) == 1 for only in places.values()]


def parted(asked: Sequence[Asked], config: EncoderConfig) -> tuple[list[Asked], list[Asked]]:
    """(questions to learn from, questions to choose by), of different documents."""
    documents = sorted({one.document_id for one in asked})
    draw = random.Random(config.seed)
    draw.shuffle(documents)
    aside = set(documents[: round(len(documents) * config.choosing)])
    choosing = [one for one in asked if one.document_id in aside]
    draw.shuffle(choosing)
    return [one for one in asked if one.document_id not in aside], choosing[: config.most_choosing]


# Training -------------------------------------------------------------------------------------------------------------


def _first_layers(model: Transformer, config: EncoderConfig) -> Transformer:
    """The model with its first layers alone, without an output matrix, and a context as long as the encoder reads."""
    shape = model.config
    del model.layers[config.layers or shape.num_hidden_layers :]
    if not shape.tie_word_embeddings:
        del model.lm_head
    model.config = replace(
        shape,
        num_hidden_layers=len(model.layers),
        max_position_embeddings=min(config.context_length, shape.max_position_embeddings),
        tie_word_embeddings=True,
    )
    return model


def _pairs(
    context: StageContext,
    config: EncoderConfig,
    learning: Sequence[Asked],
    passages: Sequence[Passage | None],
    reading: tuple[Encoder, Sequence[str]],
) -> tuple[TokenShards, list[Pair]]:
    """The tokens of passages and questions, and which belong together; from an earlier attempt where it got so far."""
    if (context.folder / PAIRS).exists():
        rows = read_json(context.folder / PAIRS)
        return TokenShards(context.folder / TOKENS), [Pair(q, p, tuple(others)) for q, p, others in rows]
    encoder, texts = reading
    folder = context.inputs["index"] / "passages"
    with context.progress.task("look up training questions", len(learning), "questions") as bar:
        found = []
        for others in _look_alikes(folder, learning, passages):
            found.append(others)
            bar.advance(1)
    pairs = []
    for number, (one, others) in enumerate(zip(learning, found, strict=True), len(texts)):
        random.Random(f"{config.seed} {one.question}").shuffle(others)
        pairs.append(Pair(number, one.passage, tuple(others[: config.others])))
    every = [*texts, *(one.question for one in learning)]
    segments = ((np.asarray(encoder.encode(text)), None) for text in every)
    shards = write_shards(context.folder / TOKENS, segments, encoder.tokenizer.vocab_size)
    write_json(context.folder / PAIRS, [[pair.question, pair.passage, pair.others] for pair in pairs])
    return shards, pairs


def _look_alikes(folder: Path, asked: Sequence[Asked], passages: Sequence[Passage | None]) -> Iterator[list[int]]:
    """`look_alikes` of each question, by threads: SQLite leaves Python's lock while it searches."""
    threads = threading.local()

    def of(one: Asked) -> list[int]:
        if not hasattr(threads, "index"):
            threads.index = PassageIndex(folder)
        return look_alikes(one, threads.index, passages)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(of, asked)


def look_alikes(asked: Asked, index: PassageIndex, passages: Sequence[Passage | None], most: int = 8) -> list[int]:
    """Passages of training documents that BM25 takes for the right one; one with the answer in it may well be right."""
    found = []
    for number, _ in index.rank(asked.question, _LOOKED_AT):
        passage = passages[number]
        if number != asked.passage and passage is not None and asked.answer not in passage.text:
            found.append(number)
    return found[:most]


def _embed(context: StageContext, encoder: Encoder, texts: Sequence[str]) -> None:
    vectors = np.empty((len(texts), encoder.dimensions), np.float32)
    # Texts of like length are computed together, and sorting them all keeps padding low.
    order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
    with context.progress.task("embed passages", len(texts), "passages") as bar:
        for start in range(0, len(order), _EMBEDDED_AT_ONCE):
            some = order[start : start + _EMBEDDED_AT_ONCE]
            vectors[some] = encoder.vectors([texts[number] for number in some])
            bar.advance(len(some))
    save_vectors(context.folder / VECTORS, vectors)


# Choosing and measuring -----------------------------------------------------------------------------------------------


def choose(index: PassageIndex, vectors: PassageVectors, encoder: Encoder, asked: Sequence[Asked]) -> dict[str, Any]:
    """The weight that ranks best by nDCG and recalls no less than words alone, 0 for words alone; and all figures."""
    rankings = rank_both(index, vectors, encoder, asked)
    words = score([place(ranking, one.passage) for (ranking, _), one in zip(rankings, asked, strict=True)])
    measured = {weight: measure(rankings, asked, weight)["hybrid"] for weight in WEIGHTS}
    better = {w: s for w, s in measured.items() if s.ndcg > words.ndcg and s.recall >= words.recall}
    weight = max(better, key=lambda w: (better[w].ndcg, -w), default=0.0)
    figures = {name: asdict(scores) for name, scores in measure(rankings, asked, weight).items()}
    return {"weight": weight, **figures, "by_weight": {str(w): asdict(s) for w, s in measured.items()}}


def _for_the_reader(context: StageContext, weight: float, asked: Sequence[Asked]) -> dict[str, Any]:
    """Its exact answers with each look-up, and the weight that gives more; 0 where words alone do or none is needed."""
    folder = context.inputs["reader"] / RANKER
    if not weight or not folder.exists():
        return {"weight": weight, "questions": 0, "words": 0.0, "hybrid": 0.0}
    ranker, exact = Ranker.load(folder), {}
    for name, tried in (("words", 0.0), ("hybrid", weight)):
        lookup = lookup_in(context.inputs["index"] / "passages", context.folder, tried)
        reader = Reader(None, lookup, ranker)
        exact[name] = fmean(exact_match(reader.answer(one.question).text, one.answer) for one in asked)
    return {"weight": weight if exact["hybrid"] > exact["words"] else 0.0, "questions": len(asked), **exact}


def rank_both(
    index: PassageIndex, vectors: PassageVectors, encoder: Encoder, asked: Sequence[Asked]
) -> list[tuple[list[int], list[int]]]:
    """For each question the passages by words and those by vectors, best first."""
    queries = encoder.vectors([one.question for one in asked])
    return [
        (
            [number for number, _ in index.rank(one.question, POOL)],
            [number for number, _ in vectors.rank(query, POOL)],
        )
        for one, query in zip(asked, queries, strict=True)
    ]


def measure(
    rankings: Sequence[tuple[list[int], list[int]]], asked: Sequence[Asked], weight: float
) -> dict[str, RetrievalScores]:
    """The figures of "words", "vectors" and "hybrid", the two fused with this weight."""
    places: dict[str, list[int]] = {"words": [], "vectors": [], "hybrid": []}
    for (by_words, by_vector), one in zip(rankings, asked, strict=True):
        both = [number for number, _ in fuse(by_words, by_vector, weight)]
        for name, ranking in zip(places, (by_words, by_vector, both), strict=True):
            places[name].append(place(ranking, one.passage))
    return {name: score(found) for name, found in places.items()}
