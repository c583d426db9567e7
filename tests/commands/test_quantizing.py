"""`puna quantize`."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from puna.base.errors import InputError
from puna.base.files import read_json, read_jsonl, write_json, write_jsonl
from puna.base.progress import Silent
from puna.commands.quantizing import read_texts
from puna.data import corpus
from puna.data.conversations import QuestionConfig, build_conversations, build_tasks, write_conversations
from puna.data.corpus import read_folder
from puna.quant.linear import QuantLinear
from puna.recipes.run_folder import load_model
from puna.testing import tiny_checkpoint, tiny_model, tiny_tokenizer

CODE = '"""Ways."""\n\n\ndef go(steps):\n    """Walk until a wall is met."""\n    return steps * 2\n'


@pytest.fixture
def more(documents: Path) -> Path:
    """So many documents that one in ten can be held back twice."""
    for i in range(6):
        (documents / f"more{i}.py").write_text(CODE.replace("2", str(i)))
    return documents


def test_it_saves_the_model_and_all_that_it_says(puna, checkpoint: Path, more: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    options = ("--recipe", "int8", "--calibration", more, "--format", "layers.0.mlp.*=fp8", "-q", "--json")
    code, printed, errors = puna("quantize", checkpoint, out, *options)
    assert code == 0, errors
    report = json.loads(printed)
    assert report["formats"] == {"int8": 11, "fp8": 3}
    assert report["bytes_quantized"] < report["bytes_original"]
    assert abs(report["perplexity_change"]) < 0.02
    assert report["speeds"].keys() == {"prefill", "decode"}
    assert read_json(out / "card.json")["metrics"]["kl"] == report["kl"]
    page = Path(f"{out}.html").read_text()
    assert "layers.1" in page or "<svg" in page
    assert "fp8" in page


def test_the_folder_holds_the_numbers_that_were_compared(puna, checkpoint: Path, more: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    options = ("--method", "rotate+gptq", "--recipe", "int8", "--calibration", more, "--no-speed", "-q")
    code, printed, errors = puna("quantize", checkpoint, out, *options)
    assert code == 0, errors
    assert "int8, rotate+gptq: 14 x int8" in printed
    assert f"saved to {out}" in printed
    assert "tokens/s" not in printed
    model = load_model(out, "float32", "cpu").model
    assert sum(isinstance(module, QuantLinear) for module in model.modules()) == 14
    ids = torch.tensor([tiny_tokenizer().encode(CODE, bos=True)])
    with torch.inference_mode():
        expected = tiny_model(max_position_embeddings=512)(ids)
        assert float((model(ids) - expected).norm() / expected.norm()) < 0.05


def test_a_budget_needs_no_recipe(puna, checkpoint: Path, more: Path, tmp_path: Path) -> None:
    options = ("--budget-bytes", "50000", "--calibration", more, "--no-speed", "-q", "--json")
    code, printed, errors = puna("quantize", checkpoint, tmp_path / "made", *options)
    assert code == 0, errors
    report = json.loads(printed)
    assert report["recipe"] == "auto"
    assert report["bytes_quantized"] <= 50_000 < report["bytes_original"]


@pytest.mark.parametrize(
    ("options", "message", "way_out"),
    [
        (("--recipe", "int9"), "There is no recipe 'int9'", "int8"),
        (("--method", "gtpq"), "There is no quantisation method 'gtpq'", "gptq"),
        (("--recipe", "int8", "--max-kl", "0.1"), "the recipe is 'int8'", ""),
        (("--budget-bytes", "9", "--max-kl", "0.1"), "needs one budget", "--max-kl"),
        (("--format", "layers.0.*"), "has no '='", "layers.0.*=int8"),
    ],
)
def test_wrong_options_end_before_the_work(
    puna, checkpoint: Path, more: Path, tmp_path: Path, options: tuple[str, ...], message: str, way_out: str
) -> None:
    code, _, errors = puna("quantize", checkpoint, tmp_path / "made", "--calibration", more, "-q", *options)
    assert code
    assert message in errors
    assert way_out in errors
    assert not (tmp_path / "made").exists()


def test_a_folder_with_something_else_is_not_overwritten(puna, checkpoint: Path, documents: Path) -> None:
    before = sorted(documents.iterdir())
    code, _, errors = puna("quantize", checkpoint, documents, "--calibration", documents, "-q")
    assert code
    assert "holds no checkpoint" in errors
    assert sorted(documents.iterdir()) == before


def test_conversations_are_read_as_the_model_hears_them(tmp_path: Path) -> None:
    path = tmp_path / "talks.jsonl"
    said = [f"Where is {place}?" for place in ("north", "south", "west")]
    messages = [[{"role": "user", "content": text}, {"role": "assistant", "content": "There."}] for text in said]
    write_jsonl(path, [{"messages": each} for each in messages])
    assert len(list(read_jsonl(path))) == 3
    texts = read_texts(path, tiny_tokenizer(), 0, Silent())
    assert (len(texts.calibration), len(texts.held_out)) == (2, 1)
    found = [tiny_tokenizer().decode(ids) for ids in (*texts.held_out, *texts.calibration)]
    assert all(text in whole and "There." in whole for text, whole in zip(said, found, strict=True))


@pytest.fixture
def run(tmp_path: Path, documents: Path) -> Path:
    """What `puna raise` leaves behind, as far as the command reads it."""
    folder = tmp_path / "run"
    tiny_checkpoint(folder / "sft" / "checkpoint", max_position_embeddings=512)
    read, _ = read_folder(documents)
    corpus.write(folder / "split" / "train", read[:4])
    corpus.write(folder / "split" / "held_out", read[4:])
    write_conversations(
        folder / "questions" / "conversations.jsonl", build_conversations(read[:4], QuestionConfig(), 0)
    )
    tasks = build_tasks(read[4:], QuestionConfig(), 0)
    write_jsonl(folder / "questions" / "tasks.jsonl", (asdict(task) for task in tasks))
    write_json(folder / "lineage.json", {})
    return folder


def test_a_run_gives_its_conversations_its_held_out_text_and_its_questions(puna, run: Path, tmp_path: Path) -> None:
    texts = read_texts(run, tiny_tokenizer(), 3, Silent())
    held_out = [tiny_tokenizer().decode(ids[1:]) for ids in texts.held_out]
    assert held_out == [document.text for document in corpus.read(run / "split" / "held_out")]
    assert all("assistant" in tiny_tokenizer().decode(ids) for ids in texts.calibration)
    assert len(texts.tasks) == 3
    options = ("--recipe", "int4-g32", "--method", "gptq", "--tasks", "3", "--no-speed", "-q", "--json")
    code, printed, errors = puna("quantize", run, tmp_path / "made", *options)
    assert code == 0, errors
    report = json.loads(printed)
    assert report["scores"].keys() == {"exact match", "token F1"}
    assert report["tokens"] == sum(len(ids) - 1 for ids in texts.held_out)


def test_a_run_without_held_out_text_or_conversations_is_split(run: Path) -> None:
    for name in ("split/held_out", "questions"):
        shutil.rmtree(run / name)
    texts = read_texts(run, tiny_tokenizer(), 3, Silent())
    assert (len(texts.calibration), len(texts.held_out), texts.tasks) == (3, 1, [])


def test_one_short_text_is_too_little(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(CODE)
    with pytest.raises(InputError, match="others to compare on"):
        read_texts(tmp_path, tiny_tokenizer(), 0, Silent())
