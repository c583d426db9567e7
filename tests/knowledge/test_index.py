from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.base.errors import ArtifactError
from puna.core.document import Document
from puna.knowledge.index import PassageIndex

LIBRARY = '''
def copyfile(source, target):
    """Copies the content of a file to another place, which must not be a folder. Nothing else is copied."""
    return _copy(source, target)


def copytree(source, target):
    """Copies a folder; calls copyfile for each file in it, and copyfile again wherever copyfile has failed."""
    for name in names(source):
        copyfile(source / name, target / name)


def _copy(source, target):
    """Reads a part of one file and writes it into the other one, until there is nothing left that could be read."""
'''
GUIDE = """# Turtles

Żółw is a turtle. Its shell is a résumé of its life, in which every year has left a ring for those who look.

# Paths

Use `C:\\temp*` or a-b, and never forget that a path with a blank in it must be quoted wherever it is written.
"""


@pytest.fixture
def documents(document: Callable[..., Document]) -> list[Document]:
    others = [document("Of something else.", "text", f"other{i}.txt") for i in range(20)]
    return [document(LIBRARY, source="shutil.py"), document(GUIDE, "markdown", "guide.md"), *others]


@pytest.fixture
def index(tmp_path: Path, documents: list[Document]) -> Iterator[PassageIndex]:
    made = PassageIndex.build(tmp_path / "index", documents, 220)
    yield made
    made.close()


def headings(index: PassageIndex, question: str, limit: int = 3) -> list[str]:
    return [passage.heading for passage, _ in index.search(question, limit)]


def test_the_passage_that_defines_a_name_comes_before_those_that_call_it(index: PassageIndex):
    found = headings(index, "What does copyfile do?")
    assert found[0] == "def copyfile"
    assert "def copytree" in found


def test_results_are_whole_passages_best_first(index: PassageIndex, documents: list[Document]):
    results = index.search("copyfile source target shell turtle", 100)
    assert len(results) == 5
    scores = [score for _, score in results]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] > 0
    texts = {document.id: document.text for document in documents}
    for passage, _ in results:
        assert passage.text == texts[passage.document_id][passage.start : passage.end] != ""
        assert passage.source == passage.document_id


def test_all_passages_are_there_and_no_more_are_given_than_asked_for(index: PassageIndex):
    assert len(index) == 26
    assert [len(index.search("source target", limit)) for limit in (0, 1, 2)] == [0, 1, 2]


def test_case_and_accents_do_not_matter_in_any_form_of_unicode(index: PassageIndex):
    for question in ("żółw", "ŻÓŁW", "Zo\u0301łw", "résumé", "RESUME", "re\u0301sume\u0301"):
        assert headings(index, question)[:1] == ["Turtles"], question


def test_a_name_with_an_underscore_is_one_word(index: PassageIndex):
    assert headings(index, "_copy")[0] == "def _copy"
    assert headings(index, "copy") == []


@pytest.mark.parametrize("name", ["guide", "guide.md"])
def test_the_source_counts_too(index: PassageIndex, name: str):
    assert index.search(name)[0][0].source == "guide.md"


@pytest.mark.parametrize(
    "question",
    [
        "", " ", "?!", "What is it?", "how can you do this", '"', '"copyfile', "copyfile*", "*", "^", "a AND",
        "NOT copyfile", "NEAR(copyfile source, 2)", "OR OR OR", "text:copyfile", "{copyfile heading} : x", "-copyfile",
        "--", "copyfile + x", "'; DROP TABLE passages; --", "(", ")", "\\", "\0copyfile", "\ud800", "%s {0}", "🐢",
        "你好", "नमस्ते", "\u0301",
    ],
)  # fmt: skip
def test_no_question_is_read_as_a_query(index: PassageIndex, question: str):
    found = index.search(question)
    assert [passage.heading for passage, _ in found[:1]] == (["def copyfile"] if "copyfile" in question else [])


def test_words_of_the_query_language_are_words(tmp_path: Path, document: Callable[..., Document]):
    text = "near and far\n\nor not\n"
    index = PassageIndex.build(tmp_path / "index", [document(text, "text", "x.txt")], 15)
    assert [passage.text.strip() for passage, _ in index.search("NEAR")] == ["near and far"]
    assert [passage.text.strip() for passage, _ in index.search("NOT")] == ["or not"]
    index.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40))
def test_any_question_is_answered(index: PassageIndex, question: str):
    assert len(index.search(question)) <= 3


def test_a_very_long_question_is_answered(index: PassageIndex):
    long = " ".join(f"word{i}" for i in range(10_000)) + " copyfile"
    assert headings(index, long)[0] == "def copyfile"
    assert index.search("x" * 1_000_000) == []


def test_a_word_counts_once_however_often_it_is_asked(index: PassageIndex):
    assert index.search("copyfile Copyfile copyfile") == index.search("copyfile")


# Files -------------------------------------------------------------------------------------------------------------


def test_an_index_is_read_only(index: PassageIndex, tmp_path: Path):
    file = next((tmp_path / "index").iterdir())
    content, mode = file.read_bytes(), stat.S_IMODE(file.stat().st_mode)
    file.chmod(0o444)
    again = PassageIndex(tmp_path / "index")
    assert again.search("copyfile") == index.search("copyfile")
    again.close()
    file.chmod(mode)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        index._database.execute("DELETE FROM passages")
    assert file.read_bytes() == content
    assert [path.name for path in (tmp_path / "index").iterdir()] == [file.name]


def test_building_again_replaces_the_index(tmp_path: Path, document: Callable[..., Document]):
    for text in ("first words", "second words"):
        PassageIndex.build(tmp_path / "index", [document(text, "text", "x.txt")], 100).close()
    index = PassageIndex(tmp_path / "index")
    assert (len(index), len(index.search("first")), len(index.search("second"))) == (1, 0, 1)
    index.close()


def test_a_build_that_fails_leaves_the_old_index(tmp_path: Path, document: Callable[..., Document]):
    def broken() -> Iterator[Document]:
        yield document("new words", "text", "y.txt")
        raise ArtifactError("The corpus is damaged.")

    PassageIndex.build(tmp_path / "index", [document("old words", "text", "x.txt")], 100).close()
    with pytest.raises(ArtifactError, match="damaged"):
        PassageIndex.build(tmp_path / "index", broken(), 100)
    index = PassageIndex(tmp_path / "index")
    assert [passage.text for passage, _ in index.search("words")] == ["old words"]
    index.close()
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_an_index_of_nothing_finds_nothing(tmp_path: Path):
    index = PassageIndex.build(tmp_path / "index", [], 100)
    assert (len(index), index.search("anything")) == (0, [])
    index.close()


@pytest.mark.parametrize("name", ["run #1", "100%", "a?b=c", "żółw", "it's"])
def test_a_folder_may_have_any_name(tmp_path: Path, document: Callable[..., Document], name: str):
    index = PassageIndex.build(tmp_path / name, [document("some words", "text", "x.txt")], 100)
    assert len(index.search("words")) == 1
    index.close()


def test_a_missing_index_is_told_with_the_way_out(tmp_path: Path):
    with pytest.raises(ArtifactError, match=r"no passage index in .*nowhere") as caught:
        PassageIndex(tmp_path / "nowhere")
    assert "puna raise" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"this is no database" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_index_is_told(tmp_path: Path, index: PassageIndex, content: bytes):
    index.close()
    file = next((tmp_path / "index").iterdir())
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot be read"):
        PassageIndex(tmp_path / "index")


def test_passages_have_numbers_in_the_order_of_the_documents(index: PassageIndex):
    every = list(index.titled())
    assert len(every) == len(index)
    assert index.passages(range(len(index))) == [passage for passage, _ in every]
    for question in ("What does copyfile do?", "lines", ""):
        ranked = index.rank(question, 5)
        assert list(zip(index.passages([n for n, _ in ranked]), [s for _, s in ranked], strict=True)) == index.search(
            question, 5
        )
    assert all(passage.heading in titles for passage, titles in every)
