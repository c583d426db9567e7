"""Parity with trl: its own trainers on Hugging Face's Llama, and ours, with the same weights and tokens.

Each compares the loss and the gradient of every parameter. trl pads each answer to a row of its own; here they are
packed. Where trl takes a mean over a batch that is not one over its pairs (the loss of chosen answers is a mean over
all their tokens), it is given one pair at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from puna.align.distil import Distillation
from puna.align.groups import Group, GroupBatch, GroupLoader
from puna.align.losses import DPO, IPO, KTO, ORPO, Pairs, SimPO
from puna.align.objectives import META_DPO, PairwisePreference, UnpairedPreference
from puna.align.reference import reference_logprobs
from puna.align.rendering import write_labelled, write_ranked
from puna.align.reward import LLAMA2_MARGINS, Ranking, RewardModel
from puna.core.chat import Message
from puna.core.preference import Preference
from puna.core.protocols import Objective
from puna.data.shards import TokenShards
from puna.model.checkpoint import Checkpoint
from puna.testing import tiny_checkpoint, tiny_model, tiny_tokenizer
from puna.train.objectives import NextToken

pytest.importorskip("trl", reason="trl is not installed; it is in the dev extra")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TEXTS = [
    ("What is 2 + 2?", "It is 4.", "Five, I think."),
    ("Say hello", "Hello!\n\nHow are you?", "No."),
    ("Name a colour", "Blue", "A colour is what light does to an eye"),
    ("Who are you", "A model <|eot_id|>", "You"),
]
PREFERENCES = [
    Preference((Message("user", q),), (Message("assistant", a),), (Message("assistant", b),), strength=s)
    for (q, a, b), s in zip(TEXTS, ("significantly", "better", "slightly", "negligibly"), strict=True)
]
Grads = dict[str, Tensor]


class Peer:
    """trl's trainers over one folder with two checkpoints: `a`, which learns, and `b`, the reference or teacher."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tiny_checkpoint(folder / "a")
        tiny_checkpoint(folder / "b", seed=1)

    def model(self, name: str) -> Any:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.folder / name, dtype=torch.float32)

    def trainer(self, kind: str, rows: list[dict[str, Any]], reference: bool = True, **settings: Any) -> Any:
        """trl's trainer of a kind, "DPO" or another; its data set is only what its constructor asks for."""
        import trl
        from datasets import Dataset
        from transformers import AutoTokenizer

        common = {"report_to": "none", "bf16": False, "use_cpu": True, "per_device_train_batch_size": 4}
        config = getattr(trl, f"{kind}Config")(output_dir=str(self.folder / "out"), **common, **settings)
        model = self.score_model() if kind == "Reward" else self.model("a")
        return getattr(trl, f"{kind}Trainer")(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(self.folder / "a"),
            **({"ref_model": self.model("b")} if reference else {}),
        )

    def score_model(self) -> Any:
        from transformers import AutoModelForSequenceClassification

        model = AutoModelForSequenceClassification.from_pretrained(self.folder / "a", num_labels=1, dtype=torch.float32)
        model.config.pad_token_id = tiny_tokenizer().pad_id
        with torch.no_grad():
            model.score.weight.copy_(RewardModel.of(tiny_model()).score.weight)
        return model


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield Peer(tmp_path_factory.mktemp("peer"))


def padded(shards: TokenShards, segments: list[int]) -> dict[str, Tensor]:
    """trl's form: a row each, padded on the right, with the mask of the tokens that count."""
    length = int(shards.lengths[segments].max())
    shape = len(segments), length
    ids = torch.full(shape, tiny_tokenizer().pad_id)
    attention, completion = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for row, segment in enumerate(segments):
        known = torch.from_numpy(shards.ids(segment, 0, length).astype(np.int64))
        ids[row, : len(known)], attention[row, : len(known)] = known, 1
        completion[row, : len(known)] = torch.from_numpy(np.array(shards.mask(segment, 0, length))).long()
    return {"input_ids": ids, "attention_mask": attention, "completion_mask": completion}


def packed(shards: TokenShards, groups: list[Group], references: np.ndarray | None = None) -> GroupBatch[Tensor]:
    loader = GroupLoader(shards, groups, 600, 600, 600, references=references)
    return loader.batch(np.arange(loader.packing.rows)).map(torch.from_numpy)


def ours(objective: Objective, model: nn.Module, batch: GroupBatch[Tensor]) -> tuple[float, Grads]:
    loss = objective.loss(model, batch) / objective.count(batch)
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def theirs(loss: Tensor, model: nn.Module) -> tuple[float, Grads]:
    loss.backward()
    named = {n.removeprefix("model."): p.grad for n, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), {n: g.clone() for n, g in named.items()}


def assert_same(found: tuple[float, Grads], expected: tuple[float, Grads]) -> None:
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    assert found[1].keys() == expected[1].keys()
    assert max(float(g.abs().max()) for g in expected[1].values()) > 1e-3
    for name, grad in expected[1].items():
        torch.testing.assert_close(found[1][name], grad, atol=1e-5, rtol=1e-5)


PAIR = [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2


@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        (PairwisePreference(DPO(0.1)), {"loss_type": ["sigmoid"], "beta": 0.1}),
        (PairwisePreference(DPO(0.7)), {"loss_type": ["sigmoid"], "beta": 0.7}),
        (PairwisePreference(IPO(0.3)), {"loss_type": ["ipo"], "beta": 0.3}),
    ],
)
@pytest.mark.parametrize("mask", ["content", "answer"])
def test_dpo_and_ipo(peer: Peer, tmp_path: Path, objective: Objective, settings: dict[str, Any], mask: Any) -> None:
    shards, groups = write_ranked(tmp_path / "tokens", PREFERENCES, tiny_tokenizer(), mask)
    trainer = peer.trainer("DPO", PAIR, **settings)
    chosen, rejected = ([group.segments[i] for group in groups] for i in (0, 1))
    expected = theirs(trainer._compute_loss(trainer.model, padded(shards, chosen + rejected), False), trainer.model)
    reference = reference_logprobs(tiny_model(1), shards, tmp_path / "kept")
    assert_same(ours(objective, tiny_model(), packed(shards, groups, reference.logprobs_N)), expected)


def test_metas_dpo_with_the_loss_of_chosen_answers(peer: Peer, tmp_path: Path) -> None:
    shards, groups = write_ranked(tmp_path / "tokens", PREFERENCES, tiny_tokenizer())
    trainer = peer.trainer("DPO", PAIR, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.2], beta=0.1)
    losses = [trainer._compute_loss(trainer.model, padded(shards, list(g.segments)), False) for g in groups]
    expected = theirs(torch.stack(losses).mean(), trainer.model)
    reference = reference_logprobs(tiny_model(1), shards, tmp_path / "kept")
    assert_same(ours(META_DPO, tiny_model(), packed(shards, groups, reference.logprobs_N)), expected)


def test_kto_with_its_distance(peer: Peer, tmp_path: Path) -> None:
    shards, groups = write_labelled(tmp_path / "tokens", PREFERENCES, tiny_tokenizer())
    rows = [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "a", "completion": "c", "label": False}]
    settings = {"beta": 0.2, "desirable_weight": 1.5, "undesirable_weight": 0.5}
    trainer = peer.trainer("KTO", rows, **settings)
    answers, others = ([group.segments[i] for group in groups] for i in (0, 1))
    inputs = padded(shards, answers) | {f"KL_{name}": value for name, value in padded(shards, others).items()}
    inputs["label"] = torch.tensor([group.label == 1 for group in groups])
    expected = theirs(trainer._compute_loss(trainer.model, inputs, False), trainer.model)
    reference = reference_logprobs(tiny_model(1), shards, tmp_path / "kept")
    batch = packed(shards, groups, reference.logprobs_N)
    assert_same(ours(UnpairedPreference(KTO(**settings)), tiny_model(), batch), expected)


@pytest.mark.parametrize("margins", [{}, LLAMA2_MARGINS])
def test_rewards(peer: Peer, tmp_path: Path, margins: dict[float, float]) -> None:
    shards, groups = write_ranked(tmp_path / "tokens", PREFERENCES, tiny_tokenizer())
    trainer = peer.trainer("Reward", [{"chosen": "a", "rejected": "b"}] * 2, reference=False)
    inputs = padded(shards, [group.segments[i] for i in (0, 1) for group in groups])
    del inputs["completion_mask"]
    if margins:
        inputs["margin"] = torch.tensor([margins[group.label] for group in groups])
    expected = theirs(trainer.compute_loss(trainer.model, inputs), trainer.model)
    assert_same(ours(Ranking(margins), RewardModel.of(tiny_model()), packed(shards, groups)), expected)


def test_supervised_fine_tuning(peer: Peer, tmp_path: Path) -> None:
    shards, groups = write_ranked(tmp_path / "tokens", PREFERENCES, tiny_tokenizer(), "answer")
    trainer = peer.trainer("SFT", [{"text": "a"}] * 2, reference=False)
    inputs = padded(shards, [segment for group in groups for segment in group.segments])
    completion = inputs.pop("completion_mask")
    inputs["labels"] = inputs["input_ids"].masked_fill(completion == 0, -100)
    expected = theirs(trainer.compute_loss(trainer.model, inputs), trainer.model)
    assert_same(ours(NextToken(), tiny_model(), packed(shards, groups)), expected)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
def test_distillation(peer: Peer, tmp_path: Path, beta: float) -> None:
    from trl.experimental.gkd import GKDTrainer

    shards, groups = write_ranked(tmp_path / "tokens", PREFERENCES, tiny_tokenizer(), "answer")
    inputs = padded(shards, [segment for group in groups for segment in group.segments])
    student, teacher = peer.model("a"), peer.model("b")
    completion = inputs.pop("completion_mask")
    labels = inputs["input_ids"].masked_fill(completion == 0, -100)
    with torch.no_grad():
        teacher_logits = teacher(**inputs).logits[:, :-1]
    student_logits = student(**inputs).logits[:, :-1]
    loss = GKDTrainer.generalized_jsd_loss(student_logits, teacher_logits, labels[:, 1:], beta=beta, temperature=0.9)
    expected = theirs(loss, student)
    objective = Distillation(tiny_model(1), beta=beta, temperature=0.9)
    assert_same(ours(objective, tiny_model(), packed(shards, groups)), expected)


class _Settings:
    """What trl's loss functions read of their trainer."""

    def __init__(self, **settings: Any) -> None:
        self.accelerator = type("Accelerator", (), {"device": torch.device("cpu")})()
        self.alpha, self.label_smoothing = 0.0, 0.0
        self.__dict__.update(settings)


def _simpo(chosen: Tensor, rejected: Tensor) -> Tensor:
    from trl.experimental.cpo import CPOTrainer

    settings: Any = _Settings(loss_type="simpo", beta=2.5, simpo_gamma=1.4)
    return CPOTrainer.cpo_loss(settings, chosen, rejected)[0]


def _orpo(chosen: Tensor, rejected: Tensor) -> Tensor:
    from trl.experimental.orpo import ORPOTrainer

    settings: Any = _Settings(beta=0.3)
    return -ORPOTrainer.odds_ratio_loss(settings, chosen, rejected)[0]


def _smoothed(chosen: Tensor, rejected: Tensor) -> Tensor:
    from trl.experimental.cpo import CPOTrainer

    settings: Any = _Settings(loss_type="sigmoid", beta=0.4, label_smoothing=0.2)
    return CPOTrainer.cpo_loss(settings, chosen, rejected)[0]


@pytest.mark.parametrize(
    ("loss", "reference"), [(SimPO(2.5, 1.4), _simpo), (ORPO(0.3), _orpo), (DPO(0.4, 0.2), _smoothed)]
)
def test_simpo_orpo_and_smoothed_labels(loss: Any, reference: Callable[[Tensor, Tensor], Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    values = [(-5 * torch.rand(20, generator=generator) - 0.01).requires_grad_() for _ in range(2)]
    one, zero = torch.ones(20), torch.zeros(20)
    found, expected = loss(Pairs(*values, one, one, zero, zero)), reference(*values)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    grads = [torch.autograd.grad(x.sum(), values) for x in (found, expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_the_models_are_the_same(peer: Peer) -> None:
    weights = Checkpoint.load(peer.folder / "a").weights
    assert all(torch.equal(weights[name], value) for name, value in tiny_model().state_dict().items())
