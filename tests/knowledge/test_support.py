"""Whether the documents hold it at all."""

from __future__ import annotations

from puna.core.document import Document
from puna.knowledge.search import Hit
from puna.knowledge.support import calibrate, separation, strength, supported


def hit(**scores: float) -> Hit:
    return Hit("c", "d", "s", "text", 0, 4, "", 1.0, scores)


def test_the_reranker_is_asked_first_then_words_then_vectors():
    assert strength([hit(bm25=0.9, vector=0.8, rerank=0.2)]) == 0.2
    assert strength([hit(vector=0.8), hit(bm25=0.4, vector=0.1)]) == 0.4
    assert strength([hit(vector=0.8), hit(vector=0.9)]) == 0.9
    assert strength([]) == 0


def test_hits_are_given_whole_or_not_at_all():
    hits = [hit(bm25=0.5), hit(bm25=0.1)]
    assert supported(hits, 0.4) == hits
    assert supported(hits, 0.6) == []
    assert supported([], 0.1) == []


def test_a_threshold_between_the_two_kinds_is_found():
    assert 0.3 < calibrate([0.5, 0.6, 0.9], [0.1, 0.3]) <= 0.5
    assert calibrate([], []) == calibrate([], [])
    assert 0.2 < calibrate([0.5, 0.1, 0.8, 0.9], [0.05, 0.2, 0.15]) <= 0.5


def test_separation_is_one_for_kinds_that_do_not_mix_and_a_half_for_chance():
    assert separation([0.5, 0.6], [0.1, 0.2]) == 1
    assert separation([0.1, 0.2], [0.5]) == 0
    assert separation([0.3], [0.3]) == 0.5
    assert separation([], [0.1]) == 0.5


def test_a_question_about_what_is_named_nowhere_is_weak(open_library):
    library = open_library()
    for number in range(40):
        library.put(Document(f"The part {number} of the engine turns the wheel {number}.", f"d{number}", ""))
    named = strength(library.search("Which wheel does part 7 of the engine turn?"))
    nowhere = strength(library.search("Which colour has the zygote?"))
    assert named > 0.2 > nowhere == 0
    assert named > strength(library.search("Which wheel does part 7 of the zygote turn?"))
