"""Does search by words and vectors together find more than either alone, and how long does it take in a large library?

The documents and questions are those of a run of `puna raise` (its stages `read` and `questions`), with Python's own
library as the documents. A question counts as answered where the chunk that holds its answer is among the first ten.
Held-out questions are about documents that no setting was chosen by; `--training` asks the others, for choosing them.
Vectors come from a static table that was learnt from the chunks, without a model, or with `--encoder` from the encoder
that the run has trained. "Not in the documents" is measured by asking the same questions of the library without the
document that answers them. `--large N` asks a library of the same documents cut into N chunks how long it takes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from puna.base.files import read_jsonl
from puna.core.document import Document
from puna.data import corpus
from puna.knowledge.chunk import chunk, titled
from puna.knowledge.library import Embed, Hit, Library, LibraryConfig, Mode
from puna.knowledge.postgres_shelf import PostgresShelf
from puna.knowledge.search import embedded_text
from puna.knowledge.shelf import Shelf
from puna.knowledge.static import StaticConfig, StaticEmbedder
from puna.knowledge.support import calibrate, separation, strength
from puna.recipes.reading import open_encoder, vector_weight

MODES: tuple[Mode, ...] = ("words", "vector", "hybrid")
DEPTH = 10
LIMIT_MS = 150.0
SMALL_CHUNKS = (300, 200, 150, 110, 80)  # characters: one of these makes a large library of the same documents


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and where its answer stands."""

    text: str
    document_id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Embedder:
    """Who makes vectors."""

    name: str
    embed: Embed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run of puna raise")
    parser.add_argument("--training", action="store_true", help="ask 1,000 questions that settings may be chosen by")
    parser.add_argument("--most", type=int, help="questions that are asked; else all")
    parser.add_argument("--chars", type=int, default=600, help="length of a chunk")
    parser.add_argument("--meaning", type=float, default=StaticConfig().meaning)
    parser.add_argument("--encoder", action="store_true", help="vectors of the run's own encoder")
    parser.add_argument("--weights", type=float, nargs="+", help="of the vectors' ranking; else what is usual")
    parser.add_argument("--postgres", default="", metavar="URL", help="of a database with pgvector for the libraries")
    parser.add_argument("--large", type=int, default=100_000, help="chunks of the large library; 0 for none")
    arguments = parser.parse_args()
    documents = list(corpus.read(arguments.run / "read/corpus"))
    questions = (training(arguments.run) if arguments.training else held_out(arguments.run))[: arguments.most]
    result: dict[str, object] = {"question": "retrieval of the chunk that answers, recall@10 and nDCG@10"}
    encoder = arguments.run / "encoder" if arguments.encoder else None
    weights = arguments.weights or [vector_weight(encoder) if encoder else LibraryConfig().vector_weight]
    result["embedder"] = "encoder" if encoder else "static table"

    def embedder(chars: int) -> Embedder:
        if encoder:
            return Embedder("encoder", open_encoder(encoder).embed)
        table = learn(documents, chars, arguments.meaning)
        return Embedder(table.name, table.embed)

    def place(name: str) -> Path | Shelf:
        if not arguments.postgres:
            return Path(folder) / f"{name}.sqlite"
        PostgresShelf(arguments.postgres, f"bench_{name}").drop()
        return PostgresShelf(arguments.postgres, f"bench_{name}")

    with tempfile.TemporaryDirectory() as folder:
        made = embedder(arguments.chars)
        for weight in weights:
            config = LibraryConfig(chunk_chars=arguments.chars, vector_weight=weight, embedder=made.name)
            with filled(place("small"), documents, made, config) as library:
                print(f"\n{len(questions):,} questions, {len(library):,} chunks, vector weight {weight}\n")
                result["ours"] = measure(library, questions)
                result["not in the documents"] = refusals(library, questions) if weight == weights[-1] else {}
        if arguments.large:
            result["large"] = large(place("large"), documents, questions, arguments.large, embedder)
    ours = result["ours"]
    assert isinstance(ours, dict)
    result["ratios"] = {
        f"hybrid / {mode}": {name: round(ours["hybrid"][name] / ours[mode][name], 4) for name in ("recall", "ndcg")}
        for mode in ("words", "vector")
    }
    result["limit"] = {"hybrid above both": all(r > 1 for row in result["ratios"].values() for r in row.values())}  # type: ignore[attr-defined]
    print(json.dumps(result))


def held_out(run: Path) -> list[Asked]:
    rows = read_jsonl(run / "questions/tasks.jsonl")
    return unique((row["meta"]["question"], row["meta"]) for row in rows)


def training(run: Path, most: int = 1000) -> list[Asked]:
    rows = read_jsonl(run / "questions/conversations.jsonl")
    return unique((row["messages"][0]["content"].rsplit("\n\n", 1)[-1], row["meta"]) for row in rows)[:most]


def unique(rows: Iterable[tuple[str, dict]]) -> list[Asked]:
    """Questions that a passage answers, those alone that are asked of one place."""
    found: dict[str, list[Asked]] = {}
    for text, meta in rows:
        if meta["spans"] and "not_in_text" not in meta["kinds"]:
            start, end = meta["spans"][0]
            found.setdefault(text, []).append(Asked(text, meta["document_id"], start, end))
    return [asked[0] for asked in found.values() if len(asked) == 1]


def learn(documents: Sequence[Document], chars: int, meaning: float) -> StaticEmbedder:
    begin = time.perf_counter()
    cut = ((document, chunk(document, chars)) for document in documents)
    texts = (
        embedded_text(document.source, titles, passage.text)
        for document, passages in cut
        for passage, titles in zip(passages, titled(document, passages), strict=True)
    )
    table = StaticEmbedder.learn(texts, StaticConfig(meaning=meaning))
    print(f"The table of words was learnt in {time.perf_counter() - begin:.1f} s.")
    return table


def filled(where: Path | Shelf, documents: Sequence[Document], embedder: Embedder, config: LibraryConfig) -> Library:
    begin = time.perf_counter()
    library = Library(where, embedder.embed, config)
    for document in documents:
        library.put(document, {"document": document.id})
    print(f"Putting {len(documents):,} documents took {time.perf_counter() - begin:.1f} s.")
    return library


def measure(library: Library, questions: Sequence[Asked]) -> dict[str, dict[str, float]]:
    """Figures by mode, and by how much the hybrid is better, with the range that chance allows."""
    print(f"{'':10}{'recall@10':>10}{'nDCG@10':>10}{'first':>8}{'ms, median':>12}")
    gains: dict[str, list[float]] = {}
    figures: dict[str, dict[str, float]] = {}
    for mode in MODES:
        places, times = [], []
        for asked in questions:
            begin = time.perf_counter()
            hits = library.search(asked.text, DEPTH, mode=mode)
            times.append((time.perf_counter() - begin) * 1000)
            right = [place for place, hit in enumerate(hits, 1) if holds(hit, asked)]
            places.append(right[0] if right else 0)
        gains[mode] = [1 / math.log2(1 + place) if place else 0.0 for place in places]
        figures[mode] = {
            "recall": round(sum(place > 0 for place in places) / len(places), 4),
            "ndcg": round(statistics.fmean(gains[mode]), 4),
            "first": round(sum(place == 1 for place in places) / len(places), 4),
            "ms": round(statistics.median(times), 2),
        }
        row = figures[mode]
        print(f"{mode:10}{row['recall']:10.4f}{row['ndcg']:10.4f}{row['first']:8.4f}{row['ms']:12.1f}")
    for mode in ("words", "vector"):
        low, high = interval(np.array(gains["hybrid"]) - np.array(gains[mode]))
        print(f"hybrid - {mode}: nDCG {low:+.4f} to {high:+.4f} (95 %)")
        figures["hybrid"][f"ndcg over {mode}, low"] = round(low, 4)
        figures["hybrid"][f"ndcg over {mode}, high"] = round(high, 4)
    return figures


def holds(hit: Hit, asked: Asked) -> bool:
    return hit.document_id == asked.document_id and hit.start <= asked.start and asked.end <= hit.end


def interval(differences: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the mean over samples drawn with replacement."""
    random = np.random.default_rng(0)
    means = random.choice(differences, (2000, len(differences))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def refusals(library: Library, questions: Sequence[Asked]) -> dict[str, float]:
    """How well the strength of the best hit tells questions with an answer from the same without their document."""
    there = [strength(library.search(asked.text, DEPTH)) for asked in questions]
    without = [
        strength(
            library.search(asked.text, DEPTH, filters={"type": "ne", "key": "document", "value": asked.document_id})
        )
        for asked in questions
    ]
    half = len(questions) // 2
    threshold = calibrate(there[:half], without[:half])
    right = statistics.fmean(one >= threshold for one in there[half:])
    refused = statistics.fmean(one < threshold for one in without[half:])
    area = separation(there, without)
    print(f"Not in the documents: area {area:.3f}; at {threshold:.3f} {right:.3f} answered, {refused:.3f} refused")
    return {"area": round(area, 4), "threshold": round(threshold, 4), "answered": round(right, 4),
            "refused": round(refused, 4)}  # fmt: skip


def large(
    where: Path | Shelf,
    documents: Sequence[Document],
    questions: Sequence[Asked],
    least: int,
    embedder: Callable[[int], Embedder],
) -> dict[str, object]:
    """Times in a library of many chunks: the same documents, cut smaller."""
    chars = next((c for c in SMALL_CHUNKS if sum(len(chunk(d, c)) for d in documents) >= least), SMALL_CHUNKS[-1])
    made = embedder(chars)
    config = LibraryConfig(chunk_chars=chars, embedder=made.name)
    times: dict[str, dict[str, float]] = {}
    with filled(where, documents, made, config) as library:
        begin = time.perf_counter()
        library.search(questions[0].text)
        first = (time.perf_counter() - begin) * 1000
        print(f"\n{len(library):,} chunks of at most {chars} characters; the first search took {first:.0f} ms\n")
        print(f"{'ms':10}{'median':>10}{'95 %':>10}{'most':>10}")
        for mode in MODES:
            spent = []
            for asked in questions[:300]:
                begin = time.perf_counter()
                library.search(asked.text, DEPTH, mode=mode)
                spent.append((time.perf_counter() - begin) * 1000)
            median, most = statistics.median(spent), max(spent)
            tail = float(np.quantile(spent, 0.95))
            times[mode] = {"median": round(median, 1), "95 %": round(tail, 1), "most": round(most, 1)}
            print(f"{mode:10}{median:10.1f}{tail:10.1f}{most:10.1f}")
        return {"chunks": len(library), "first search, ms": round(first, 1), "ms": times,
                "limit": {"ms, most": LIMIT_MS, "kept": times["hybrid"]["95 %"] < LIMIT_MS}}  # fmt: skip


if __name__ == "__main__":
    main()
