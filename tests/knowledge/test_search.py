"""One search: modes, scores, filters, reranking, spreading, the trace."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.base.errors import ConfigError, InputError
from puna.core.document import Document
from puna.knowledge.library import Library
from puna.knowledge.search import embed_texts, embedded_text

TEXTS = {
    "fox": "The red fox runs in the forest.",
    "hen": "A hen lays an egg in the barn.",
    "code": "def copyfile(source, target): return None",
    "copy": "Call copyfile, then copyfile again.",
    "owl": "An owl sleeps by day; the forest is its home.",
}


@pytest.fixture
def library(open_library, embedder) -> Library:
    library = open_library(embedder)
    for number, (id, text) in enumerate(TEXTS.items()):
        library.put(Document(text, id, f"{id}.txt"), {"number": number, "even": number % 2 == 0})
    return library


def ids(hits) -> list[str]:
    return [hit.document_id for hit in hits]


def test_each_mode_finds_by_its_own_ranker(library: Library):
    assert library.search("fox forest", mode="words")[0].scores.keys() == {"bm25"}
    assert library.search("fox forest", mode="vector")[0].scores.keys() == {"vector"}
    best = library.search("fox forest")[0]
    assert best.document_id == "fox"
    assert best.scores.keys() == {"bm25", "vector"}
    assert best.score == pytest.approx(1.0)


@pytest.mark.parametrize("mode", ["words", "vector", "hybrid"])
def test_scores_are_shares_in_falling_order(library: Library, mode):
    hits = library.search("the forest fox copyfile hen", 10, mode=mode)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 + 1e-6 for hit in hits for score in (hit.score, *hit.scores.values()))


def test_a_share_of_the_words_falls_with_each_word_that_is_missing(library: Library):
    whole = library.search("fox", mode="words")[0].score
    half = library.search("fox xylophone", mode="words")[0].score
    assert whole > 2 * half


def test_without_an_embedder_hybrid_is_words(open_library):
    library = open_library()
    library.put(Document("fox", "a", "x"))
    assert library.search("fox")[0].scores.keys() == {"bm25"}
    assert library.search("fox") == library.search("fox", mode="words")
    with pytest.raises(ConfigError, match="no embedder"):
        library.search("fox", mode="vector")


def test_an_unknown_mode_is_refused(library: Library):
    with pytest.raises(ConfigError, match="'both'"):
        library.search("fox", mode="both")  # type: ignore[arg-type]


def test_the_limit_and_the_threshold_hold(library: Library):
    every = library.search("forest fox owl", 10, mode="words")
    assert library.search("forest fox owl", 1, mode="words") == every[:1]
    assert library.search("forest fox owl", 0) == []
    threshold = every[0].score
    assert library.search("forest fox owl", 10, mode="words", score_threshold=threshold) == every[:1]
    assert library.search("forest fox owl", 10, mode="words", score_threshold=1.1) == []


@pytest.mark.parametrize("mode", ["words", "vector", "hybrid"])
def test_filters_hold_in_every_mode_and_do_not_use_up_the_limit(library: Library, mode):
    odd = {"type": "eq", "key": "even", "value": False}
    assert set(ids(library.search("the forest fox hen copyfile", 10, mode=mode, filters=odd))) <= {"hen", "copy"}
    late = {"type": "gte", "key": "number", "value": 4}
    assert ids(library.search("forest", 1, mode=mode, filters=late)) == ["owl"]
    never = {"type": "eq", "key": "nobody", "value": 1}
    assert library.search("forest", mode=mode, filters=never) == []
    with pytest.raises(InputError):
        library.search("forest", mode=mode, filters={})


def test_several_ways_to_ask_are_fused(library: Library):
    both = ids(library.search(["fox", "egg"], 2, mode="words"))
    assert set(both) == {"fox", "hen"}
    assert library.search([], 5) == []
    assert library.search(["", "?"], 5, mode="words") == []


def test_a_reranker_has_the_last_word(open_library, embedder):
    asked: list[tuple[str, list[str]]] = []

    def rerank(query, texts):
        asked.append((query, list(texts)))
        return [0.9 if "owl" in text else 0.1 for text in texts]

    library = open_library(embedder, rerank=rerank)
    for id, text in TEXTS.items():
        library.put(Document(text, id, f"{id}.txt"))
    hits = library.search("forest fox", 3)
    assert hits[0].document_id == "owl"
    assert hits[0].score == hits[0].scores["rerank"] == 0.9
    assert asked[0][0] == "forest fox"
    assert all(text.startswith(tuple(f"{id}.txt\n" for id in TEXTS)) for text in asked[0][1])


@pytest.mark.parametrize("wrong", [[0.5], [float("nan")] * 5, "xxxxx"])
def test_a_reranker_that_gives_nonsense_is_refused(open_library, embedder, wrong):
    library = open_library(embedder, rerank=lambda query, texts: wrong)
    for id, text in TEXTS.items():
        library.put(Document(text, id, f"{id}.txt"))
    with pytest.raises((InputError, ValueError)):
        library.search("forest fox copyfile hen")


@pytest.mark.parametrize("with_vectors", [True, False])
def test_diversity_leaves_out_what_repeats(open_library, embedder, with_vectors: bool):
    for name, diversity, expected in (("a", 0.0, {"one", "two"}), ("b", 0.95, {"one", "other"})):
        library = open_library(embedder if with_vectors else None, f"{name}.sqlite", diversity=diversity)
        library.put(Document("fox fox fox in the snow", "one", ""))
        library.put(Document("fox fox fox in the snow too", "two", ""))
        library.put(Document("ships and harbours, and once a fox in them", "other", ""))
        assert set(ids(library.search("fox", 2, mode="words"))) == expected


def test_the_trace_says_who_put_what_where(library: Library):
    retrieval = library.retrieve("copyfile target", 2)
    rankers = [ranking.ranker for ranking in retrieval.trace.rankings]
    assert rankers == ["bm25", "vector", "fused", "kept"]
    places = retrieval.trace.places(retrieval.hits[0].chunk_id)
    assert places["kept"] == places["fused"] == 1
    assert retrieval.hits[0].scores["bm25"] == dict(retrieval.trace.rankings[0].chunks)[retrieval.hits[0].chunk_id]
    assert len(retrieval.trace.rankings[-1].chunks) == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=40))
def test_any_question_is_answered(library: Library, question: str):
    for mode in ("words", "hybrid"):
        assert len(library.search(question, 3, mode=mode)) <= 3


@pytest.mark.parametrize(
    "question", ['"', "copyfile*", "NOT copyfile", "text:copyfile", "'; DROP TABLE chunks; --", "\0copyfile"]
)
def test_no_question_is_read_as_a_query(library: Library, question: str):
    hits = library.search(question, mode="words")
    assert {hit.document_id for hit in hits} == ({"code", "copy"} if "copyfile" in question else set())


def test_what_is_embedded_stands_under_its_title():
    assert embedded_text("a.py", "class A", "x") == "a.py > class A\nx"
    assert embedded_text("", "", "x") == "\nx"


def test_vectors_are_of_one_length_and_as_many_as_texts():
    assert embed_texts(lambda texts: [[3.0, 4.0]], ["x"], 2)[0].tolist() == pytest.approx([0.6, 0.8])
    with pytest.raises(InputError, match="2 vectors for 1"):
        embed_texts(lambda texts: [[1.0], [1.0]], ["x"], 0)
    with pytest.raises(ConfigError, match="length 1"):
        embed_texts(lambda texts: [[1.0]], ["x"], 2)
