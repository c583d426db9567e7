"""A run's reader is put together from what the run holds."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from puna.base.errors import ArtifactError
from puna.base.files import write_json
from puna.core.verdict import Task
from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import NOT_IN_TEXT, grounded_prompt
from puna.knowledge.hybrid import HybridIndex, PassageVectors
from puna.knowledge.index import PassageIndex
from puna.reader.ranker import Ranker
from puna.recipes.reading import (
    CHOICE,
    ENCODER,
    RANKER,
    VECTORS,
    lookup_in,
    open_encoder,
    open_reader,
    passages_of,
    ranker_of,
    vector_weight,
)
from puna.testing import ScriptedChatModel

FIRST = Passage("d", "a.py", 0, 12, "def f", "def f(): 1\n\n")
SECOND = Passage("d", "a.py", 12, 30, "def g", "def g(): 2\n\n\nx = 1")


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A run with an index and a ranker that prefers what stands in a definition's brackets."""
    shutil.copytree(finished_run / "index", tmp_path / "index")
    shutil.copy(finished_run / "lineage.json", tmp_path)
    (tmp_path / RANKER).mkdir(parents=True)
    Ranker({"<any>": 0}, {"roles:def brackets": 0}, np.full((1, 1), 20, np.float32)).save(tmp_path / RANKER)
    return tmp_path


def test_the_reader_of_a_run_quotes_its_documents(run: Path) -> None:
    reader = open_reader(run, ScriptedChatModel([]))
    assert reader is not None
    answer = reader.answer("What are the parameters of weigh_copper_0?")
    assert answer.text == "amount, scale=1"
    assert answer.passages[0].source == "module_0.py"


def test_any_thread_may_ask(run: Path) -> None:
    reader = open_reader(run, None)
    assert reader is not None
    question = "What are the parameters of weigh_copper_0?"
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(reader.answer, [question] * 4))
    assert answers == [reader.answer(question)] * 4


def test_a_damaged_index_is_told_of_at_once(run: Path) -> None:
    (run / "index/passages/passages.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(ArtifactError, match="cannot be read"):
        open_reader(run, None)


def test_a_run_without_a_ranker_lets_its_model_write(run: Path) -> None:
    shutil.rmtree(run / RANKER)
    assert ranker_of(run) is None
    model = ScriptedChatModel([NOT_IN_TEXT])
    reader = open_reader(run, model)
    assert reader is not None
    assert reader.answer("What is weigh_copper_0?").text == NOT_IN_TEXT
    assert len(model.asked) == 1


def test_vectors_are_asked_where_the_run_has_chosen_so(run: Path, finished_run: Path) -> None:
    shutil.copytree(finished_run / "encoder", run / ENCODER)
    index, question = run / "index/passages", "What are the parameters of weigh_copper_0?"
    encoder, vectors = open_encoder(run / ENCODER), PassageVectors.load(run / ENCODER / VECTORS)
    with closing(PassageIndex(index)) as words:
        alone = [passage for passage, _ in words.search(question, 5)]
        both = HybridIndex(words, vectors, encoder.vectors, 0.5).search(question, 5)
    for weight, expected in ((0.0, alone), (0.5, [passage for passage, _ in both])):
        lookup = lookup_in(index, run / ENCODER, weight, 5)
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(lookup, [question] * 3)) == [expected] * 3
    assert lookup_in(index, run / "nowhere", 0.0, 5)(question) == alone


def test_the_reader_and_others_have_weights_of_their_own(run: Path) -> None:
    encoder = run / ENCODER
    assert vector_weight(encoder) == vector_weight(encoder, quoting=True) == 0
    encoder.mkdir()
    write_json(encoder / CHOICE, {"lookup": {"weight": 0.5}, "reader": {"weight": 0.0}})
    assert vector_weight(encoder) == 0.5
    assert vector_weight(encoder, quoting=True) == 0
    assert open_reader(run, None) is not None  # it opens no encoder, of which there is none
    write_json(encoder / CHOICE, {"lookup": {"weight": 0.5}, "reader": {"weight": 0.5}})
    reader = open_reader(run, None)
    assert reader is not None
    with pytest.raises(ArtifactError, match="vectors"):
        reader.answer("What are the parameters of weigh_copper_0?")


def test_another_look_up_can_be_given(run: Path, tmp_path: Path) -> None:
    reader = open_reader(run, ScriptedChatModel([]), lambda _: [Passage("x", "y.py", 0, 11, "", "def f(z): 1")])
    assert reader is not None
    assert reader.answer("What is f?").text == "z"


def test_what_is_no_run_has_no_reader(tmp_path: Path) -> None:
    assert open_reader(tmp_path, ScriptedChatModel([])) is None
    assert ranker_of(tmp_path) is None


@pytest.mark.parametrize("shown", [[FIRST], [SECOND], [FIRST, SECOND], [SECOND, FIRST]])
def test_the_passages_of_a_prompt_are_found(shown: list[Passage]) -> None:
    task = Task("1", grounded_prompt("What is f?", shown), "1", meta={"question": "What is f?"})
    assert passages_of(task, [FIRST, SECOND]) == shown


def test_a_prompt_with_a_foreign_passage_gives_none() -> None:
    task = Task("1", grounded_prompt("What is f?", [FIRST, SECOND]), "1", meta={"question": "What is f?"})
    assert passages_of(task, [FIRST]) == []
    assert passages_of(Task("1", "What is f?", "1"), [FIRST]) == []
