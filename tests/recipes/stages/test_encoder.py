"""The encoder's stage: what it learns from, what it chooses by, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from puna.base.config import override
from puna.base.errors import ConfigError
from puna.base.files import read_json, write_jsonl
from puna.base.progress import MetricsLog, Silent
from puna.core.chat import Conversation, Message
from puna.core.verdict import Task
from puna.data import corpus
from puna.data.conversations import read_conversations
from puna.evals.retrieval import score
from puna.knowledge.chunk import Passage
from puna.knowledge.hybrid import PassageVectors
from puna.knowledge.index import PassageIndex
from puna.knowledge.nearest import unit
from puna.model.checkpoint import Checkpoint
from puna.recipes.raising import RaiseConfig
from puna.recipes.reading import CHOICE, VECTORS, open_encoder
from puna.recipes.runner import StageContext
from puna.recipes.stages.encoder import (
    PAIRS,
    Asked,
    EncoderConfig,
    choose,
    look_alikes,
    make_encoder,
    measure,
    parted,
    questions_of,
    questions_of_tasks,
    unambiguous,
)
from puna.recipes.stages.questions import CONVERSATIONS


def numbers_of(run: Path) -> dict[tuple[str, int, int], int]:
    index = PassageIndex(run / "index" / "passages")
    return {(p.document_id, p.start, p.end): number for number, (p, _) in enumerate(index.titled())}


def context(run: Path, folder: Path, **inputs: Path) -> StageContext:
    folder.mkdir(exist_ok=True)
    stages = {name: run / name for name in ("split", "questions", "index", "reader", "pretrain")} | inputs
    return StageContext(folder, stages, Silent(), MetricsLog(folder / "metrics.jsonl"), run)


def settings(tiny: RaiseConfig) -> EncoderConfig:
    assert tiny.encoder is not None
    return tiny.encoder


# What a run has -------------------------------------------------------------------------------------------------------


def test_every_passage_has_the_vector_that_the_encoder_gives_it(finished_run: Path) -> None:
    encoder = open_encoder(finished_run / "encoder", "cpu")
    vectors = np.load(finished_run / "encoder" / VECTORS)
    every = list(PassageIndex(finished_run / "index" / "passages").titled())
    assert len(vectors) == len(every)
    for number in (0, len(every) - 1):
        passage, titles = every[number]
        (made,) = encoder.vectors([f"{passage.source} > {titles}\n{passage.text}"])
        np.testing.assert_allclose(vectors[number], made, atol=0.02)


def test_the_encoder_is_the_models_first_layers_trained_further(finished_run: Path, tiny: RaiseConfig) -> None:
    before = Checkpoint.load(finished_run / "pretrain" / "checkpoint")
    after = Checkpoint.load(finished_run / "encoder" / "checkpoint")
    assert after.config.num_hidden_layers == settings(tiny).layers or before.config.num_hidden_layers
    assert after.config.max_position_embeddings == settings(tiny).context_length
    assert before.tokenizer == after.tokenizer
    moved = [float((before.weights[name] - after.weights[name]).abs().max()) for name in after.weights]
    assert max(moved) > 0


def test_the_run_tells_what_was_chosen_and_by_what(finished_run: Path) -> None:
    choice = read_json(finished_run / "encoder" / CHOICE)
    chosen, quoted = choice["lookup"], choice["reader"]
    held_out = json.loads((finished_run / "evaluate" / "scores.json").read_text())["retrieval"]
    assert chosen["weight"] == held_out["weight"]
    for figures in (chosen, held_out):
        for name in ("words", "vectors", "hybrid"):
            assert 0 <= figures[name]["ndcg"] <= figures[name]["recall"] <= 1
            assert figures[name]["questions"] > 0
    if chosen["weight"]:
        assert chosen["hybrid"]["ndcg"] > chosen["words"]["ndcg"]
        assert quoted["questions"] > 0
        assert (quoted["weight"] > 0) == (quoted["hybrid"] > quoted["words"])
    else:
        assert chosen["hybrid"] == chosen["words"]
        assert quoted["weight"] == 0
    assert not (finished_run / "encoder" / PAIRS).exists()


# Questions ------------------------------------------------------------------------------------------------------------


def test_questions_are_those_that_a_passage_of_the_index_answers(finished_run: Path) -> None:
    conversations = read_conversations(finished_run / "questions" / CONVERSATIONS)
    index = PassageIndex(finished_run / "index" / "passages")
    train = {document.id for document in corpus.read(finished_run / "split" / "train")}
    asked = questions_of(conversations, numbers_of(finished_run))
    assert len(asked) > 20
    for one in asked:
        (passage,) = index.passages([one.passage])
        assert one.answer in passage.text
        assert passage.document_id == one.document_id in train
        assert "\n" not in one.question
    # Nothing is asked of a passage that does not hold the answer, nor of what stands in no passage.
    assert len(asked) < len(conversations)
    assert questions_of(conversations, {}) == []


def test_held_out_questions_are_found_likewise(finished_run: Path) -> None:
    held_out = {document.id for document in corpus.read(finished_run / "split" / "held_out")}
    rows = (finished_run / "questions" / "tasks.jsonl").read_text().splitlines()
    tasks = [Task(**json.loads(row)) for row in rows]
    asked = questions_of_tasks(tasks, numbers_of(finished_run))
    assert {one.document_id for one in asked} <= held_out
    assert 0 < len(asked) < len(tasks)


def test_a_question_that_is_asked_of_two_passages_is_left_out() -> None:
    one, other, again = (
        Asked("What is f?", 1, "a", "1"),
        Asked("What is f?", 2, "b", "2"),
        Asked("What is g?", 3, "b", ""),
    )
    assert unambiguous([one, other, again, again]) == [again]


def test_no_document_is_both_learnt_from_and_chosen_by() -> None:
    asked = [Asked(f"What is f{i}?", i, f"d{i % 20}", "x") for i in range(200)]
    learning, choosing = parted(asked, EncoderConfig(choosing=0.2, most_choosing=25))
    assert not {one.document_id for one in learning} & {one.document_id for one in choosing}
    assert len({one.document_id for one in learning}) == 16
    assert len(choosing) == 25
    assert parted(asked, EncoderConfig(choosing=0.2, seed=1)) != (learning, choosing)


def test_what_holds_the_answer_or_was_held_out_is_no_look_alike(finished_run: Path) -> None:
    index = PassageIndex(finished_run / "index" / "passages")
    passages: list[Passage | None] = [passage for passage, _ in index.titled()]
    question = "What does the class CopperCrate0 do?"
    found = look_alikes(Asked(question, -1, "", "no such answer"), index, passages)
    assert found
    assert found[0] == index.rank(question, 1)[0][0]
    assert found[0] not in look_alikes(Asked(question, found[0], "", "no such answer"), index, passages)
    holding = str(passages[found[0]].text[10:20])  # type: ignore[union-attr]
    assert found[0] not in look_alikes(Asked(question, -1, "", holding), index, passages)
    passages[found[0]] = None
    assert found[0] not in look_alikes(Asked(question, -1, "", "no such answer"), index, passages)


# Choosing -------------------------------------------------------------------------------------------------------------


class Means:
    """An encoder whose vectors of questions are given."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors

    def vectors(self, texts: list[str]) -> np.ndarray:
        return self._vectors


@pytest.mark.parametrize("knows", [True, False])
def test_vectors_count_where_they_help_and_not_where_they_do_not(finished_run: Path, knows: bool) -> None:
    index = PassageIndex(finished_run / "index" / "passages")
    every = [passage for passage, _ in index.titled()]
    draw = np.random.default_rng(0)
    rows = unit(draw.standard_normal((len(every), 16)))
    # Words that stand in many passages, of which one is meant.
    asked = [Asked("weight of some", number, "", "") for number, p in enumerate(every) if "weight of some" in p.text]
    aimed = rows[[one.passage for one in asked]] if knows else unit(draw.standard_normal((len(asked), 16)))
    figures = choose(index, PassageVectors(rows), Means(aimed), asked)  # type: ignore[arg-type]
    assert len(asked) > 5
    if knows:
        assert figures["weight"] > 0
        assert figures["hybrid"]["ndcg"] > figures["words"]["ndcg"]
        assert figures["vectors"]["first"] == 1.0
    else:
        rejected = [one for one in figures["by_weight"].values() if one["ndcg"] > figures["words"]["ndcg"]]
        assert figures["weight"] == 0 or rejected


def test_all_three_rankings_are_measured_by_the_same_questions() -> None:
    rankings = [([1, 2], [2, 1]), ([3], [4, 3])]
    asked = [Asked("", 1, "", ""), Asked("", 3, "", "")]
    figures = measure(rankings, asked, 1.0)
    assert figures["words"] == score([1, 1])
    assert figures["vectors"] == score([2, 2])
    assert figures["hybrid"] == score([1, 1])


# Being cut off, and having nothing to do ------------------------------------------------------------------------------


def test_a_stage_that_was_cut_off_goes_on_to_the_same_weights(
    finished_run: Path, tiny: RaiseConfig, tmp_path: Path
) -> None:
    config = settings(tiny)
    make_encoder(context(finished_run, tmp_path / "whole"), config, "cpu")

    class Cut(Silent):
        def task(self, name, total, unit="", done=0):
            if name == "embed passages":
                raise KeyboardInterrupt
            return super().task(name, total, unit, done)

    cut = context(finished_run, tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        make_encoder(StageContext(cut.folder, cut.inputs, Cut(), cut.metrics, cut.run_folder), config, "cpu")
    trained = (tmp_path / "cut" / PAIRS).stat().st_mtime_ns
    make_encoder(cut, config, "cpu")
    assert (tmp_path / "cut" / PAIRS).stat().st_mtime_ns == trained  # what was looked up was not looked up again
    for name in (VECTORS, CHOICE, "checkpoint/model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_without_questions_there_is_no_encoder(finished_run: Path, tiny: RaiseConfig, tmp_path: Path) -> None:
    taught = Conversation((Message("user", "Why?"), Message("assistant", "Because.")))
    (tmp_path / "questions").mkdir()
    write_jsonl(tmp_path / "questions" / CONVERSATIONS, [taught.to_json()])
    made = make_encoder(
        context(finished_run, tmp_path / "encoder", questions=tmp_path / "questions"), settings(tiny), "cpu"
    )
    assert made == {"pairs": 0}
    assert not (tmp_path / "encoder" / CHOICE).exists()
    shutil.rmtree(tmp_path / "encoder")


def test_settings_that_mean_nothing_are_refused(tiny: RaiseConfig) -> None:
    for change in ("layers=-1", "others=-1", "choosing=1.0", "most_choosing=0", "objective.temperature=0"):
        with pytest.raises(ConfigError, match=change.split("=")[0].rsplit(".", 1)[-1]):
            override(tiny, [f"encoder.{change}"])
