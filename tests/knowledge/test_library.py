"""Documents put, changed and deleted: what a library holds depends on the documents and not on its history."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.base.errors import ConfigError, InputError, StorageError
from puna.core.document import Document
from puna.knowledge.library import Hit, Library, LibraryConfig

GUIDE = """# Turtles

A turtle has a shell. Its shell is a record of its life.

# Parrots

A kea is a parrot of the mountains. It opens bins.
"""


def found(hits: list[Hit]) -> list[tuple[object, ...]]:
    return [(h.chunk_id, h.document_id, h.text, h.start, h.end, h.heading, h.score, dict(h.scores), dict(h.attributes))
            for h in hits]  # fmt: skip


# What is kept ---------------------------------------------------------------------------------------------------------


def test_a_document_comes_back_as_it_was(open_library, document):
    library = open_library()
    given_one = Document(GUIDE, "g", "guide.md", "en", {"quality": 0.5}, {"kind": "markdown", "blocks_of": [1]})
    assert library.put(given_one, {"year": 2020}) == len(library.chunks("g")) > 0
    assert library.document("g") == given_one
    assert library.attributes("g") == {"year": 2020}
    assert library.documents() == ["g"]
    assert library.document("other") is library.attributes("other") is None
    assert library.chunks("other") == []


def test_chunks_are_pieces_of_the_document_with_their_headings(open_library, document):
    library = open_library(chunk_chars=70)
    library.put(document(GUIDE, "markdown", "guide.md"), {"a": 1})
    chunks = library.chunks("guide.md")
    assert [chunk.heading for chunk in chunks] == ["Turtles", "Parrots"]
    for chunk in chunks:
        assert GUIDE[chunk.start : chunk.end] == chunk.text
        assert (chunk.source, chunk.attributes, chunk.scores) == ("guide.md", {"a": 1}, {})
    assert len(library) == 2


def test_chunks_overlap_on_request(open_library, document):
    library = open_library(chunk_chars=60, overlap_chars=20)
    text = " ".join(f"word{i}" for i in range(60))
    library.put(document(text, "text", "a.txt"))
    chunks = library.chunks("a.txt")
    assert all(before.end > after.start for before, after in itertools.pairwise(chunks))
    assert all(text[c.start : c.end] == c.text and len(c.text) <= 60 for c in chunks)
    assert chunks[-1].end == len(text)


def test_putting_again_replaces_and_the_same_text_is_not_worked_on_again(open_library, document, embedder):
    library = open_library(embedder, chunk_chars=70)
    library.put(document(GUIDE, "markdown", "g"), {"v": 1})
    names, seen = [c.chunk_id for c in library.chunks("g")], len(embedder.seen)
    library.put(document(GUIDE, "markdown", "g"), {"v": 2})
    assert len(embedder.seen) == seen
    assert library.attributes("g") == {"v": 2}
    library.put(document(GUIDE.replace("bins", "cars"), "markdown", "g"), {"v": 3})
    assert len(embedder.seen) == seen + 1  # the chunk that changed, and not the other
    after = [c.chunk_id for c in library.chunks("g")]
    assert after[0] == names[0]
    assert after[1] != names[1]
    assert library.search("bins", mode="words") == []
    assert [hit.attributes for hit in library.search("cars", mode="words")] == [{"v": 3}]


def test_deleting_takes_all_of_it(open_library, document, embedder):
    library = open_library(embedder)
    library.put(document(GUIDE, "markdown", "g"))
    library.put(document("A turtle.", "text", "t"))
    assert library.delete("g")
    assert not library.delete("g")
    assert library.documents() == ["t"]
    for mode in ("words", "vector", "hybrid"):
        assert {hit.document_id for hit in library.search("turtle parrot", mode=mode)} == {"t"}
    library.delete("t")
    assert len(library) == 0
    with library._shelf.reading() as seen:
        assert seen.dimensions(library.config.embedder) == 0  # no vector is left
    library.check()


def test_a_vector_shared_by_two_chunks_stays_for_the_other(open_library, embedder):
    library = open_library(embedder)
    for id in ("a", "b"):
        library.put(Document("the same words", id, "same.txt"))
    assert len(embedder.seen) == 1
    library.delete("a")
    assert [hit.document_id for hit in library.search("same words", mode="vector")] == ["b"]


def test_attributes_can_be_set_alone(open_library, document):
    library = open_library()
    library.put(document("Words.", "text", "a"))
    assert library.set_attributes("a", {"x": "y"})
    assert not library.set_attributes("b", {})
    assert library.search("words")[0].attributes == {"x": "y"}


@pytest.mark.parametrize(
    "text", ["", "  \n\n ", "...", "\0", "a\0b", "\ud800 word", "🐢" * 50, "x" * 5000, "é\n" * 300]
)
def test_any_text_can_be_kept(open_library, text: str, embedder):
    library = open_library(embedder, chunk_chars=100)
    library.put(Document(text, "id\ud800", "s"))
    kept = library.document("id\ud800")
    assert kept is not None
    assert kept.text == text.replace("\ud800", "\ufffd")
    assert all(kept.text[c.start : c.end] == c.text for c in library.chunks("id\ud800"))
    library.search(text)
    library.check()
    assert library.delete("id\ud800")


# History does not matter

_TEXTS = ("red fox", "red red hen", "blue fox\n\n\nred hen", "blue", "", "fox " * 30, "hen and fox and hen " * 8)
_IDS = ("a", "b", "c", "d")
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(_IDS), st.sampled_from(_TEXTS), st.sampled_from(["x", "y"])),
        st.tuples(st.just("delete"), st.sampled_from(_IDS)),
        st.tuples(st.just("attributes"), st.sampled_from(_IDS), st.sampled_from(["x", "y"])),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("search")),
    ),
    max_size=14,
)


@pytest.mark.parametrize("exact_below", [4096, 3])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
def test_after_any_history_results_are_those_of_a_new_library(
    place, embedder, exact_below: int, steps: list[tuple[str, ...]]
):
    if place.store == "postgres" and exact_below != 4096:
        pytest.skip("PostgreSQL keeps no vectors in memory")
    config = LibraryConfig(chunk_chars=40, exact_below=exact_below)
    library = emptied(Library(place("old"), embedder, config))
    try:
        model: dict[str, tuple[str, str]] = {}
        for step, *values in steps:
            if step == "put":
                id, text, tag = values
                library.put(Document(text, id, f"{id}.txt"), {"tag": tag})
                model[id] = (text, tag)
            elif step == "delete":
                assert library.delete(values[0]) == (model.pop(values[0], None) is not None)
            elif step == "attributes":
                assert library.set_attributes(values[0], {"tag": values[1]}) == (values[0] in model)
                if values[0] in model:
                    model[values[0]] = (model[values[0]][0], values[1])
            elif step == "reopen":
                library.close()
                library = Library(place("old"), embedder, config)
            else:
                library.search("fox", 3)
        assert library.documents() == sorted(model)
        with emptied(Library(place("new"), embedder, config)) as fresh:
            for id in sorted(model, reverse=True):
                fresh.put(Document(model[id][0], id, f"{id}.txt"), {"tag": model[id][1]})
            assert_alike(library, fresh)
        library.check()
    finally:
        library.close()


def emptied(library: Library) -> Library:
    """A library without what the example before left in it: that is history too."""
    for id in library.documents():
        library.delete(id)
    assert len(library) == 0
    return library


def assert_alike(one: Library, other: Library) -> None:
    tagged = {"type": "eq", "key": "tag", "value": "x"}
    for query in ("red fox", "hen", "blue", "nothing"):
        for mode in ("words", "vector", "hybrid"):
            for filters in (None, tagged):
                for limit in (1, 2, 50):
                    first = found(one.search(query, limit, mode=mode, filters=filters))
                    assert first == found(other.search(query, limit, mode=mode, filters=filters))


# A process that is killed

_WRITER = """
import sys
from puna.core.document import Document
from puna.knowledge.library import Library, LibraryConfig
embed = lambda texts: [[len(text), text.count("fox") + 1.0, 1.0] for text in texts]
where = sys.argv[1]
if "://" in where:
    from puna.knowledge.postgres_shelf import PostgresShelf
    where = PostgresShelf(*where.rsplit(" ", 1))
library = Library(where, embed, LibraryConfig(chunk_chars=60))
for number in range(int(sys.argv[2]), 100000):
    if number % 3 == 2:
        library.delete(f"d{number - 2}")
        print("deleted", f"d{number - 2}", flush=True)
    library.put(Document(f"fox number {number} runs. " * 20, f"d{number}", "x.txt"), {"n": number})
    print("put", f"d{number}", flush=True)
"""


def embed_for_writer(texts):
    return [[len(text), text.count("fox") + 1.0, 1.0] for text in texts]


def test_what_is_acknowledged_survives_a_kill_and_nothing_is_half_there(place):
    named = place.named("killed")
    expected: dict[str, bool] = {}
    number = 0
    for seed in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, named, str(number)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(random.Random(seed).uniform(0.02, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        lines = [
            line.split() for line in [first, *process.stdout.read().splitlines(keepends=True)] if line.endswith("\n")
        ]
        process.stdout.close()
        process.wait()
        for what, id in lines:
            expected[id] = what == "put"
        number = max(int(id[1:]) for id in expected) + 2
        with Library(place("killed"), embed_for_writer, LibraryConfig(chunk_chars=60)) as library:
            library.check()
            there = set(library.documents())
            # One more step than was acknowledged may have been finished.
            assert len({id for id, kept in expected.items() if kept} - there) <= 1
            assert len({id for id, kept in expected.items() if not kept} & there) == 0
            assert len(there - {id for id, kept in expected.items() if kept}) <= 1
            expected = dict.fromkeys(there, True)
            with Library(place(f"fresh{seed}"), embed_for_writer, library.config) as fresh:
                for id in there:
                    kept = library.document(id)
                    assert kept is not None
                    fresh.put(kept, library.attributes(id))
                for mode in ("words", "vector", "hybrid"):
                    assert found(library.search("fox number 3", 40, mode=mode)) == found(
                        fresh.search("fox number 3", 40, mode=mode)
                    )


# Several at once ------------------------------------------------------------------------------------------------------


def test_threads_may_write_and_search_at_once(open_library, embedder):
    library = open_library(embedder)
    faults: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(8):
                library.put(Document(f"fox {number} {turn}", f"d{number}-{turn % 3}", "x"))
                assert library.search("fox", 5)
                library.delete(f"d{number}-{(turn + 1) % 3}")
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    library.check()
    assert len(library.search("fox", 50, mode="vector")) == len(library) == len(library.documents())


def test_another_hand_on_the_same_file_is_seen(open_library, embedder):
    one, other = open_library(embedder), open_library(embedder)
    one.put(Document("fox", "a", "x"))
    assert [hit.document_id for hit in other.search("fox", mode="vector")] == ["a"]
    other.put(Document("fox fox", "b", "x"))
    one.delete("a")
    assert [hit.document_id for hit in one.search("fox", mode="vector")] == ["b"]
    assert [hit.document_id for hit in other.search("fox", mode="vector")] == ["b"]


# Another embedder -----------------------------------------------------------------------------------------------------


def test_vectors_that_are_missing_can_be_made_later(open_library, embedder):
    library = open_library()
    library.put(Document("fox", "a", "x"))
    library.put(Document("hen", "b", "y"))
    later = open_library(embedder)
    assert later.search("fox", mode="vector") == []
    assert [hit.document_id for hit in later.search("fox")] == ["a"]
    assert later.refresh() == 2
    assert later.refresh() == 0
    assert later.search("fox", mode="vector")[0].document_id == "a"
    assert library.refresh() == 0


def test_an_embedder_of_another_length_is_refused_under_the_same_name(open_library, embedder):
    open_library(embedder).put(Document("fox", "a", "x"))
    other = open_library(lambda texts: [[1.0, 2.0] for _ in texts])
    with pytest.raises(ConfigError, match="length 2, and those in the library have 24"):
        other.put(Document("hen", "b", "x"))
    with pytest.raises(ConfigError, match="length 2"):
        other.search("fox")
    renamed = open_library(lambda texts: [[1.0, 2.0] for _ in texts], embedder="other")
    assert renamed.refresh() == 1
    assert [hit.document_id for hit in renamed.search("fox", mode="vector")] == ["a"]


@pytest.mark.parametrize("wrong", [[[float("nan")]], [], [[1.0], [2.0]], [1.0]])
def test_an_embedder_that_gives_nonsense_is_refused_and_nothing_is_kept(open_library, wrong):
    library = open_library(lambda texts: wrong)
    with pytest.raises(InputError, match="embedder gave"):
        library.put(Document("fox", "a", "x"))
    assert library.documents() == []


# What cannot be opened


def test_a_file_that_is_no_library_is_refused(tmp_path: Path):
    (tmp_path / "x.sqlite").write_bytes(b"not a database at all, but longer than a header of SQLite" * 20)
    with pytest.raises(StorageError, match="not a database"):
        Library(tmp_path / "x.sqlite")


def test_a_closed_library_says_so(open_library):
    library = open_library()
    library.close()
    library.close()
    with pytest.raises(StorageError, match="is closed"):
        library.search("x")


@pytest.mark.parametrize(
    "wrong", [{"chunk_chars": 0}, {"overlap_chars": 500}, {"pool": 0}, {"vector_weight": 0.0}, {"diversity": 2.0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(ConfigError):
        LibraryConfig(**wrong)  # type: ignore[arg-type]


def test_a_callback_may_be_any_callable(open_library: Callable[..., Library]):
    class Model:
        def embed(self, texts):
            return [[1.0, float(len(text))] for text in texts]

    library = open_library(Model().embed)
    library.put(Document("fox", "a", "x"))
    assert library.search("fox", mode="vector")[0].scores.keys() == {"vector"}
