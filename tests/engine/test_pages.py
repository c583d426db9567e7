from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from puna.engine.pages import PagePool, page_hashes


def named_pool(count: int, hashes: list[bytes]) -> PagePool:
    """A pool in which the pages of one text are known and nobody holds them."""
    pool = PagePool(count)
    pages = pool.take(len(hashes))
    assert pages is not None
    for page, digest in zip(pages, hashes, strict=True):
        pool.name(page, digest)
    pool.release(pages)
    return pool


def test_a_hash_stands_for_all_tokens_before_it():
    hashes = page_hashes([1, 2, 3, 4, 5], 2, "")
    assert len(hashes) == 2
    assert page_hashes([1, 2, 3, 4], 2, "") == hashes
    assert page_hashes([1, 2, 3, 9], 2, "")[0] == hashes[0]
    assert page_hashes([1, 2, 3, 9], 2, "")[1] != hashes[1]
    assert page_hashes([9, 2, 3, 4], 2, "")[1] != hashes[1]


def test_known_hashes_are_gone_on_from():
    tokens = list(range(40))
    assert page_hashes(tokens, 8, "a", page_hashes(tokens[:17], 8, "a")) == page_hashes(tokens, 8, "a")


def test_tenants_share_nothing():
    assert not set(page_hashes([1] * 8, 2, "a")) & set(page_hashes([1] * 8, 2, "b"))


def test_the_longest_known_beginning_is_found():
    hashes = page_hashes(range(12), 4, "")
    pool = named_pool(4, hashes)
    assert len(pool.match(hashes)) == 3
    assert len(pool.match([*hashes[:2], b"other", hashes[2]])) == 2
    assert pool.match([b"other"]) == []


def test_a_text_loses_its_end_before_its_beginning_and_unknown_pages_go_first():
    hashes = page_hashes(range(12), 4, "")
    pool = named_pool(4, hashes)
    first = pool.take(1)
    assert len(pool.match(hashes)) == 3, "the page that nobody knew went first"
    second = pool.take(1)
    assert len(pool.match(hashes)) == 2
    assert first != second


def test_what_is_held_is_not_taken():
    hashes = page_hashes(range(8), 4, "")
    pool = named_pool(3, hashes)
    pages = pool.match(hashes)
    pool.hold(pages)
    assert pool.free == 1
    assert pool.take(2) is None
    assert pool.free == 1, "a refusal takes nothing"
    pool.hold(pages)
    pool.release(pages)
    assert pool.take(2) is None, "another still holds them"
    pool.release(pages)
    assert pool.take(3) is not None


def test_room_beside_pages_counts_those_that_nobody_holds():
    hashes = page_hashes(range(8), 4, "")
    pool = named_pool(5, hashes)
    pages = pool.match(hashes)
    assert pool.room_beside(pages) == 3
    pool.hold(pages[:1])
    assert pool.room_beside(pages) == 3


def test_two_pages_of_one_content_are_known_once():
    pool = PagePool(2)
    first, second = pool.take(2) or ()
    pool.name(first, b"x")
    pool.name(second, b"x")
    assert pool.match([b"x"]) == [first]
    pool.release([second])
    pool.take(1)
    assert pool.match([b"x"]) == [first]


def test_forgetting_all_leaves_the_holders():
    hashes = page_hashes(range(8), 4, "")
    pool = named_pool(2, hashes)
    pool.hold(pool.match(hashes))
    pool.forget_all()
    assert pool.match(hashes) == []
    assert pool.free == 0


def test_after_a_reset_nobody_holds_a_page_and_none_is_known():
    hashes = page_hashes(range(8), 4, "")
    pool = named_pool(3, hashes)
    pool.hold(pool.match(hashes))
    pool.reset()
    assert (pool.free, pool.known, pool.match(hashes)) == (3, 0, [])
    assert pool.take(3) is not None


@given(st.lists(st.tuples(st.sampled_from(["take", "release", "hold", "name"]), st.integers(0, 5)), max_size=60))
def test_pages_are_neither_lost_nor_held_twice_for_new_content(actions: list[tuple[str, int]]):
    pool = PagePool(6)
    holders: list[list[int]] = []
    for action, number in actions:
        if action == "take":
            pages = pool.take(number)
            if pages is not None:
                assert not {page for held in holders for page in held} & set(pages)
                holders.append(pages)
        elif holders and action == "release":
            pool.release(holders.pop(number % len(holders)))
        elif holders and action == "hold":
            holders.append(list(holders[number % len(holders)]))
            pool.hold(holders[-1])
        elif holders and action == "name":
            for page in holders[number % len(holders)]:
                pool.name(page, bytes([page, number]))
        assert pool.free == 6 - len({page for held in holders for page in held})
