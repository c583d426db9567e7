"""Duplicates and near-duplicates, against exact set arithmetic."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.base.errors import ConfigError
from puna.core.document import Document
from puna.data.dedup import LSH, Duplicate, drop_exact, near_duplicate_groups


def docs(*texts: str) -> list[Document]:
    return [Document(text, str(i), f"{i}.txt") for i, text in enumerate(texts)]


def words(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices("abcdefghij", k=draw.randint(3, 8))) for _ in range(count)]


def shingles(text: str) -> set[tuple[str, ...]]:
    found = re.findall(r"\w+", text)
    return {tuple(found[i : i + 5]) for i in range(max(1, len(found) - 4))}


def edited(text: list[str], share: float, seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["changed" + str(draw.random())[2:] if draw.random() < share else word for word in text]


def test_exact_copies_go_and_the_first_source_stays():
    documents = [
        Document("same \n\n\n\ntext\n", "1", "z.txt"),
        Document("other", "2", "m.txt"),
        Document("same\n\ntext", "3", "a.txt"),
    ]
    kept, dropped = drop_exact(documents)
    assert [d.source for d in kept] == ["m.txt", "a.txt"]
    assert dropped == [Duplicate("z.txt", "a.txt")]


def test_indentation_and_order_make_a_difference():
    kept, dropped = drop_exact(docs("if a:\n    b", "if a:\n  b", "b\na", "a\nb"))
    assert len(kept) == 4 and not dropped


@pytest.mark.parametrize("share", [0.0, 0.02, 0.08])
def test_edited_copies_are_grouped_and_strangers_are_not(share: float):
    base = words(400, 1)
    texts = [" ".join(base), " ".join(edited(base, share, 2)), " ".join(words(400, 3)), " ".join(words(400, 4))]
    assert near_duplicate_groups(docs(*texts)) == [[0, 1], [2], [3]]


def test_the_threshold_is_that_of_the_true_jaccard_similarity():
    base = words(300, 5)
    for share in (0.03, 0.06, 0.1, 0.15, 0.2):
        other = edited(base, share, 6)
        a, b = shingles(" ".join(base)), shingles(" ".join(other))
        jaccard = len(a & b) / len(a | b)
        for threshold in (0.1, 0.3, 0.5, 0.7, 0.9):
            groups = near_duplicate_groups(docs(" ".join(base), " ".join(other)), threshold, containment=1.0)
            assert (len(groups) == 1) == (jaccard >= threshold), (share, threshold, jaccard)


def test_a_small_file_inside_a_big_one_is_found_by_containment():
    small, big = words(60, 7), words(3000, 8)
    whole = big[:1500] + small + big[1500:]
    assert near_duplicate_groups(docs(" ".join(small), " ".join(whole))) == [[0, 1]]
    assert near_duplicate_groups(docs(" ".join(small), " ".join(big))) == [[0], [1]]


def test_groups_are_transitive_and_do_not_depend_on_the_order():
    base = words(300, 9)
    chain = [base]
    for step in range(4):
        chain.append(edited(chain[-1], 0.12, 10 + step))
    texts = [" ".join(text) for text in chain] + [" ".join(words(300, 99))]
    assert [len(group) for group in near_duplicate_groups(docs(*texts), 0.3, 0.9)] == [5, 1]
    shuffled = docs(*texts)
    random.Random(0).shuffle(shuffled)
    groups = {frozenset(shuffled[i].source for i in group) for group in near_duplicate_groups(shuffled, 0.3, 0.9)}
    assert groups == {frozenset(f"{i}.txt" for i in range(5)), frozenset(["5.txt"])}


def test_a_large_family_is_one_group():
    base = words(200, 11)
    texts = [" ".join(edited(base, 0.03, 100 + i)) for i in range(60)]
    assert len(near_duplicate_groups(docs(*texts))) == 1


def test_numbers_are_words_like_others():
    one = " ".join(f"row {i} value {i * 7}" for i in range(100))
    other = " ".join(f"row {i + 5000} value {i * 7 + 5000}" for i in range(100))
    assert near_duplicate_groups(docs(one, other)) == [[0], [1]]


def test_scripts_without_blanks_are_compared_by_characters():
    draw = random.Random(12)
    text = "".join(draw.choices("人生而自由在尊严和权利上一律平等他们赋有理性良心并应以兄弟关系的精神相对待", k=300))
    assert near_duplicate_groups(docs(text, text[:150] + "新" + text[150:], text[::-1])) == [[0, 1], [2]]


@pytest.mark.parametrize("texts", [(), ("",), ("", "", "..."), ("a",), ("a b", "a b", "c d")])
def test_short_and_empty_documents(texts: tuple[str, ...]):
    groups = near_duplicate_groups(docs(*texts))
    assert sorted(i for group in groups for i in group) == list(range(len(texts)))
    assert ([0, 1] in groups) == (texts == ("a b", "a b", "c d"))


@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=14), min_size=1, max_size=8), st.sampled_from([0.2, 0.5, 0.8])
)
@settings(deadline=None, max_examples=60)
def test_small_corpora_are_grouped_as_all_pairs_would_be(texts: list[list[str]], threshold: float):
    documents = docs(*(" ".join(text) for text in texts))
    parent = list(range(len(texts)))
    for i, one in enumerate(texts):
        for j in range(i):
            if one and texts[j]:
                a, b = shingles(" ".join(one)), shingles(" ".join(texts[j]))
                if len(a & b) >= threshold * len(a | b):
                    old, new = sorted((parent[i], parent[j]), reverse=True)
                    parent = [new if p == old else p for p in parent]
    expected = [[i for i, p in enumerate(parent) if p == root] for root in sorted(set(parent))]
    assert near_duplicate_groups(documents, threshold, containment=1.0) == _with_contained(expected, texts)


def _with_contained(groups: list[list[int]], texts: list[list[str]]) -> list[list[int]]:
    """Containment of 1 joins a document whose shingles are all in another."""
    sets = [shingles(" ".join(text)) if text else set() for text in texts]
    merged = [set(group) for group in groups]
    for i, a in enumerate(sets):
        for j, b in enumerate(sets):
            if i != j and a and b and a <= b:
                one = next(group for group in merged if i in group)
                other = next(group for group in merged if j in group)
                if one is not other:
                    one |= other
                    merged.remove(other)
    return sorted(sorted(group) for group in merged)


def test_bands_and_rows_catch_what_they_promise():
    for threshold in (0.2, 0.35, 0.5, 0.8):
        lsh = LSH.solve(threshold)
        assert lsh.catch(threshold) >= 0.99
        assert lsh.bands * lsh.rows <= 256
        finer = LSH(256 // (lsh.rows + 1), lsh.rows + 1)
        assert finer.catch(threshold) < 0.99


def test_the_catch_probability_is_that_of_independent_hashes():
    lsh, draw = LSH(8, 3), np.random.default_rng(0)
    agree = draw.random((20_000, lsh.bands, lsh.rows)) < 0.5
    assert abs(agree.all(axis=2).any(axis=1).mean() - lsh.catch(0.5)) < 0.015


@pytest.mark.parametrize(("threshold", "containment"), [(0.0, 0.5), (1.1, 0.5), (0.5, 0.0)])
def test_thresholds_out_of_range_are_refused(threshold: float, containment: float):
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        near_duplicate_groups(docs("a"), threshold, containment)
