from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from puna.base.errors import CheckpointError, ConfigError, TrainingError
from puna.base.progress import MetricsLog
from puna.core.tokens import Batch
from puna.data.loader import BatchSource, Loader
from puna.data.packing import fill, pack
from puna.data.shards import TokenShards
from puna.model.config import ModelConfig
from puna.model.lora import LoraConfig, apply_lora
from puna.model.transformer import Transformer
from puna.train.checkpointing import load_state
from puna.train.objectives import NextToken
from puna.train.optimizer import OptimizerConfig
from puna.train.schedule import ScheduleConfig
from puna.train.trainer import TrainConfig, Trainer

Make = Callable[..., Transformer]
MakeShards = Callable[..., TokenShards]
LENGTHS = [30, 3, 17, 50, 9, 1, 24, 41, 12, 33, 8, 27]


def config(steps: int = 8, **changes: Any) -> TrainConfig:
    plain = TrainConfig(steps, OptimizerConfig(lr=0.01), dtype="float32", log_every=1, checkpoint_seconds=0.0)
    return replace(plain, **changes)


def losses(metrics: MetricsLog) -> list[float]:
    return [row["loss"] for row in metrics.read()]


def snapshot(trainer: Trainer) -> dict[str, Tensor]:
    """All that training has changed: parameters and optimizer state."""
    tensors = {f"model/{name}": p.detach().clone() for name, p in trainer.model.named_parameters()}
    return tensors | {name: value.clone() for name, value in trainer.optimizers.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], within: float = 0.0) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        if within:
            torch.testing.assert_close(tensor, b[name], atol=within, rtol=within, msg=name)
        else:
            assert torch.equal(tensor, b[name]), name


@dataclass
class Watched:
    """A source that does something before a step is read."""

    source: BatchSource
    before: Callable[[int], None]

    def micro_batches(self, step: int) -> list[Batch[np.ndarray]]:
        self.before(step)
        return self.source.micro_batches(step)


class SpoiledLoss(NextToken):
    """Next-token loss that is spoiled in its first micro-batch of one step: in the loss, or in the gradient alone."""

    def __init__(self, call: int, where: str) -> None:
        self.calls, self.call, self.where = 0, call, where

    def loss(self, model: Transformer, batch: Batch[Tensor]) -> Tensor:
        self.calls += 1
        loss = super().loss(model, batch)
        if self.calls != self.call:
            return loss
        if self.where == "loss":
            return loss * math.nan
        loss.register_hook(lambda gradient: gradient * math.inf)
        return loss


# The same numbers as others ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_fifty_steps_are_those_of_transformers_and_torch(
    tiny_model: Make, make_shards: MakeShards, tmp_path: Path, tied: bool
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, get_cosine_schedule_with_warmup

    steps, length, rows = 50, 24, 4
    model = tiny_model(tie_word_embeddings=tied)
    ours: ModelConfig = model.config
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=ours.vocab_size,
            hidden_size=ours.hidden_size,
            intermediate_size=ours.intermediate_size,
            num_hidden_layers=ours.num_hidden_layers,
            num_attention_heads=ours.num_attention_heads,
            num_key_value_heads=ours.num_key_value_heads,
            max_position_embeddings=ours.max_position_embeddings,
            rms_norm_eps=ours.rms_norm_eps,
            rope_theta=ours.rope_theta,
            tie_word_embeddings=tied,
            attn_implementation="eager",
        )
    )
    weights = {n if n.startswith("lm_head") else f"model.{n}": t for n, t in model.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert missing == (["lm_head.weight"] if tied else [])
    assert unexpected == []
    theirs.tie_weights()

    loader = Loader(make_shards([length] * 40), length, rows * length, rows * length)
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    settings = OptimizerConfig(lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    Trainer(
        model,
        NextToken(),
        loader,
        config(steps, optimizer=settings, schedule=ScheduleConfig("cosine"), checkpoint_seconds=60.0),
        metrics=metrics,
    ).fit()

    decayed = [p for p in theirs.parameters() if p.ndim == 2]
    others = [p for p in theirs.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))
    schedule = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=0, num_training_steps=steps)
    expected = []
    theirs.train()
    for step in range(steps):
        (batch,) = loader.micro_batches(step)
        ids = torch.from_numpy(batch.ids)
        loss = theirs(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    found = losses(metrics)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-4
    assert found[-1] < found[0] - 1, "the comparison is of a model that learns"


def loss_and_gradients(model: Transformer, batches: list[Batch[Tensor]]) -> tuple[float, list[Tensor]]:
    """Per token, summed over the batches."""
    objective = NextToken()
    count = sum(objective.count(batch) for batch in batches)
    total = torch.stack([objective.loss(model, batch) for batch in batches]).sum() / count
    return total.item(), list(torch.autograd.grad(total, list(model.parameters())))


@pytest.mark.parametrize("masked", [False, True])
def test_packed_segments_learn_as_each_alone(tiny_model: Make, make_shards: MakeShards, masked: bool) -> None:
    model, shards = tiny_model(), make_shards([7, 12, 3, 20, 5, 31, 2, 16, 9], masked)
    packing = pack(shards.lengths, 32)
    assert packing.rows < len(shards) / 2, "rows hold several segments"
    packed = fill(shards, packing, np.arange(packing.rows)).map(torch.from_numpy)
    alone = []
    for segment in range(len(shards)):
        ids = torch.from_numpy(shards.ids(segment, 0, 32).astype(np.int64))[None]
        learnt = torch.from_numpy(np.array(shards.mask(segment, 1, 32)))[None]
        targets = torch.cat([ids[:, 1:], torch.full((1, 1), -1)], dim=1)
        mask = torch.cat([learnt, torch.zeros(1, 1, dtype=torch.bool)], dim=1)
        alone.append(Batch(ids, targets, torch.arange(ids.shape[1])[None], torch.zeros_like(ids), mask))
    (loss, grads), (expected, wanted) = loss_and_gradients(model, [packed]), loss_and_gradients(model, alone)
    assert loss == pytest.approx(expected, abs=1e-6)
    for (name, _), a, b in zip(model.named_parameters(), grads, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("masked", [False, True])
def test_micro_batches_of_unequal_size_change_nothing(
    tiny_model: Make, make_shards: MakeShards, tmp_path: Path, masked: bool
) -> None:
    shards = make_shards(LENGTHS, masked)
    found, ends = [], []
    for parts in (1, 2, 4):
        loader = Loader(shards, 32, 4 * 32, 4 * 32 // parts)
        counts = [NextToken().count(batch.map(torch.from_numpy)) for batch in loader.micro_batches(0)]
        assert len(counts) == parts
        assert parts == 1 or len(set(counts)) > 1, "the parts are unequal"
        metrics = MetricsLog(tmp_path / f"{parts}.jsonl")
        trainer = Trainer(tiny_model(), NextToken(), loader, config(6), metrics=metrics)
        trainer.fit()
        found.append(losses(metrics))
        ends.append(snapshot(trainer))
    for other in (1, 2):
        assert found[other] == pytest.approx(found[0], abs=1e-6)
        assert_same(ends[other], ends[0], within=2e-4)


def test_recomputing_changes_nothing(tiny_model: Make, make_shards: MakeShards) -> None:
    loader = Loader(make_shards(LENGTHS), 32, 64, 32)
    plain, recomputed = (
        Trainer(tiny_model(), NextToken(), loader, config(5, recompute=recompute)) for recompute in (False, True)
    )
    plain.fit()
    recomputed.fit()
    assert_same(snapshot(recomputed), snapshot(plain))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_learns_in_every_format(
    tiny_model: Make, make_shards: MakeShards, tmp_path: Path, kind: Any, dtype: str
) -> None:
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    settings = config(40, dtype=dtype, optimizer=OptimizerConfig(kind, lr=0.01), checkpoint_seconds=60.0)
    trainer = Trainer(tiny_model(), NextToken(), Loader(make_shards([40] * 8), 40, 160, 160), settings, metrics=metrics)
    trainer.fit()
    assert losses(metrics)[-1] < losses(metrics)[0] / 2
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert not trainer.model.training


def test_a_step_with_nothing_to_learn_only_decays(tiny_model: Make, make_shards: MakeShards) -> None:
    loader = Loader(make_shards([1] * 40), 8, 16, 16)
    trainer = Trainer(tiny_model(), NextToken(), loader, config(1))
    before = snapshot(trainer)
    loss, norm = trainer.train_step(0)
    assert (float(loss), float(norm)) == (0, 0)
    shrunk = {name: value * (1 - 0.01 * 0.1) if value.ndim == 2 else value for name, value in before.items()}
    for name, value in shrunk.items():
        torch.testing.assert_close(snapshot(trainer)[name], value)


def test_gradients_are_clipped_over_all_parameters_and_only_when_asked(
    tiny_model: Make, make_shards: MakeShards
) -> None:
    loader = Loader(make_shards(LENGTHS), 32, 64, 64)
    norms = {}
    for clip in (0.0, 0.5):
        trainer = Trainer(tiny_model(), NextToken(), loader, config(1, grad_clip=clip))
        seen: list[float] = []

        def look(trainer: Trainer = trainer, seen: list[float] = seen) -> None:
            seen.append(math.sqrt(sum(float(p.grad.square().sum()) for p in trainer.trained if p.grad is not None)))

        trainer.optimizers.step = look  # type: ignore[method-assign]
        _, norm = trainer.train_step(0)
        norms[clip] = float(norm), seen[0]
    assert norms[0.0][0] == pytest.approx(norms[0.5][0]) == pytest.approx(norms[0.0][1])
    assert norms[0.5][0] > 0.5
    assert norms[0.5][1] == pytest.approx(0.5, rel=1e-4)


# Stopping and going on -----------------------------------------------------------------------------------------------

KILLED = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path

import numpy as np
import torch

from puna.base.progress import MetricsLog
from puna.data.loader import Loader
from puna.data.shards import write_shards
from puna.model.config import ModelConfig
from puna.model.init import initialize
from puna.model.transformer import Transformer
from puna.train.checkpointing import load_state
from puna.train.objectives import NextToken
from puna.train.optimizer import OptimizerConfig
from puna.train.trainer import TrainConfig, Trainer

root, kind, kills, STEPS = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), 16
torch.set_num_threads(1)
shape = ModelConfig(64, 32, 48, 2, 4, 2)
ids = np.random.default_rng(0).integers(0, 64, (20, 30))
shards = write_shards(root / "tokens", [(row, None) for row in ids], 64)

class Telling(Loader):
    # Says on a pipe when the first step begins: what is killed is the training, and not what goes before it.

    told = None

    def micro_batches(self, step):
        if self.told is not None:
            os.write(self.told, b".")
            self.told = None
        return super().micro_batches(step)

def train(folder, told=None):
    random.seed(0)  # Python draws a new seed in a forked process
    optimizer = OptimizerConfig(kind, lr=0.01)
    config = TrainConfig(STEPS, optimizer, dtype="float32", log_every=2, checkpoint_seconds=0)
    loader = Telling(shards, 32, 64, 32)
    loader.told = told
    metrics = MetricsLog(folder / "metrics.jsonl")
    model = initialize(Transformer(shape), seed=1)
    Trainer(model, NextToken(), loader, config, state_folder=folder / "state", metrics=metrics).fit()

def attempt(folder, seconds):
    # Trains in a child process, and kills it so long after its first step; returns how long it lived, if it ended.
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        train(folder, telling)
        os._exit(0)
    os.close(telling)
    os.read(told, 1)  # also ends where the child does
    os.close(told)
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if os.waitpid(child, os.WNOHANG)[0]:
            return time.monotonic() - begun
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None

def rows(folder):
    read = MetricsLog(folder / "metrics.jsonl").read()
    return [{key: row[key] for key in ("step", "loss", "grad_norm", "tokens")} for row in read]

def same(a, b):
    return torch.equal(a.nan_to_num(7), b.nan_to_num(7))

train(root / "first")  # imports what torch imports late
whole = attempt(root / "whole", 600)
chance, killed, stopped_at = random.Random(kind), 0, []
while killed < kills:
    if attempt(root / "cut", chance.uniform(0, 0.5) * whole) is None:
        killed += 1
        state = load_state(root / "cut" / "state")
        stopped_at.append(state.values["step"] if state else 0)
    else:  # it has ended before enough kills: once more from the beginning
        assert rows(root / "cut") == rows(root / "whole")
        shutil.rmtree(root / "cut")
assert attempt(root / "cut", 600) is not None
expected, found = (load_state(root / name / "state") for name in ("whole", "cut"))
for values in (expected.values, found.values):
    del values["seconds"]
print(json.dumps({
    "killed": killed,
    "stopped_at": stopped_at,
    "values": found.values == expected.values,
    "names": found.tensors.keys() == expected.tensors.keys(),
    "differ": [name for name, tensor in expected.tensors.items() if not same(tensor, found.tensors[name])],
    "steps": [row["step"] for row in rows(root / "cut")],
    "rows": rows(root / "cut") == rows(root / "whole"),
    "left": sorted(path.name for path in (root / "cut").iterdir()),
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_run_killed_again_and_again_ends_as_if_it_never_was(tmp_path: Path, kind: str) -> None:
    kills = 6
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, kind, str(kills)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(report["stopped_at"])
    assert report["killed"] == kills
    assert report["values"]
    assert report["names"]
    assert report["differ"] == []
    assert report["steps"] == list(range(2, 17, 2)), "no row is missing and none is there twice"
    assert report["rows"]
    assert report["left"] == ["metrics.jsonl", "state"], "killed saves leave nothing behind"


def ctrl_c(number: int, at: int) -> Callable[[int], None]:
    return lambda step: signal.raise_signal(number) if step == at else None


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize(
    ("at", "number"), [(0, signal.SIGINT), (3, signal.SIGTERM), (4, signal.SIGINT), (9, signal.SIGINT)]
)
def test_ctrl_c_saves_and_the_run_goes_on_to_the_same_end(
    tiny_model: Make, make_shards: MakeShards, tmp_path: Path, kind: Any, at: int, number: int
) -> None:
    loader = Loader(make_shards(LENGTHS), 32, 64, 32)
    settings = config(10, optimizer=OptimizerConfig(kind, lr=0.01), log_every=5, checkpoint_seconds=1e9)
    whole = Trainer(tiny_model(), NextToken(), loader, settings)
    whole.fit()

    def trainer(source: BatchSource) -> Trainer:
        metrics = MetricsLog(tmp_path / "metrics.jsonl")
        return Trainer(tiny_model(), NextToken(), source, settings, state_folder=tmp_path / "state", metrics=metrics)

    with pytest.raises(KeyboardInterrupt):
        trainer(Watched(loader, ctrl_c(number, at))).fit()
    state = load_state(tmp_path / "state")
    assert state is not None
    assert state.values["step"] == at + 1, "the step in hand is finished"
    resumed = trainer(loader)
    counts = resumed.fit()
    assert counts.step == 10
    assert counts.tokens == whole.counts.tokens
    assert counts.seconds > state.values["seconds"] or at == 9
    assert_same(snapshot(resumed), snapshot(whole))
    steps = [row["step"] for row in MetricsLog(tmp_path / "metrics.jsonl").read()]
    assert steps == sorted({at + 1, 5, 10})


def test_ctrl_c_while_the_last_state_is_saved_is_not_lost(
    tiny_model: Make, make_shards: MakeShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader(make_shards(LENGTHS), 32, 64, 32)
    trainer = Trainer(tiny_model(), NextToken(), loader, config(2, checkpoint_seconds=1e9), state_folder=tmp_path / "s")
    save = trainer.save

    def interrupted_save() -> None:
        signal.raise_signal(signal.SIGINT)
        save()

    monkeypatch.setattr(trainer, "save", interrupted_save)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    state = load_state(tmp_path / "s")
    assert state is not None
    assert state.values["step"] == 2


def test_rows_of_a_run_killed_before_its_first_state_are_not_kept(
    tiny_model: Make, make_shards: MakeShards, tmp_path: Path
) -> None:
    def killed(step: int) -> None:
        if step == 3:
            raise SystemExit  # no state is saved on the way out, as with kill -9

    loader, metrics = Loader(make_shards(LENGTHS), 32, 64, 32), MetricsLog(tmp_path / "metrics.jsonl")
    metrics.write(stage="tokenize", seconds=1)
    metrics.write(stage="earlier", step=50, loss=1.0)
    settings, folder = config(5, checkpoint_seconds=1e9), tmp_path / "state"
    for source in (Watched(loader, killed), loader):
        trainer = Trainer(tiny_model(), NextToken(), source, settings, state_folder=folder, metrics=metrics)
        if source is loader:
            trainer.fit()
        else:
            with pytest.raises(SystemExit):
                trainer.fit()
            assert [row.get("step") for row in metrics.read()] == [None, 50, 1, 2, 3]
    assert [row.get("step") for row in metrics.read()] == [None, 50, 1, 2, 3, 4, 5]


def test_a_finished_run_does_nothing_more(tiny_model: Make, make_shards: MakeShards, tmp_path: Path) -> None:
    def never(step: int) -> None:
        raise AssertionError(step)

    loader, settings = Loader(make_shards(LENGTHS), 32, 64, 32), config(2)
    first = Trainer(tiny_model(), NextToken(), loader, settings, state_folder=tmp_path / "state")
    first.fit()
    again = Trainer(tiny_model(), NextToken(), Watched(loader, never), settings, state_folder=tmp_path / "state")
    assert again.fit() == first.counts
    assert_same(snapshot(again), snapshot(first))


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops_and_leaves_the_last_state(
    tiny_model: Make, make_shards: MakeShards, tmp_path: Path, where: str
) -> None:
    loader, metrics = Loader(make_shards(LENGTHS), 32, 64, 64), MetricsLog(tmp_path / "metrics.jsonl")
    settings = config(10, log_every=2)
    spoiled = SpoiledLoss(call=7, where=where)
    trainer = Trainer(tiny_model(), spoiled, loader, settings, state_folder=tmp_path / "state", metrics=metrics)
    with pytest.raises(TrainingError, match=r"at step 7 the (.|\n)*optimizer.lr"):
        trainer.fit()
    state = load_state(tmp_path / "state")
    assert state is not None
    assert state.values["step"] == 6
    assert all(torch.isfinite(t).all() for n, t in state.tensors.items() if not n.startswith("random/"))
    assert [row["step"] for row in metrics.read()] == [2, 4, 6]


def test_ctrl_c_does_not_save_a_spoiled_state(tiny_model: Make, make_shards: MakeShards, tmp_path: Path) -> None:
    loader = Loader(make_shards(LENGTHS), 32, 64, 64)
    settings, folder = config(20, log_every=10, checkpoint_seconds=1e9), tmp_path / "state"
    with pytest.raises(TrainingError, match="at step 3"):
        Trainer(
            tiny_model(),
            SpoiledLoss(call=3, where="loss"),
            Watched(loader, ctrl_c(signal.SIGINT, 5)),
            settings,
            state_folder=folder,
        ).fit()
    assert load_state(folder) is None


@pytest.mark.parametrize("changes", [{"hidden_size": 64}, {"num_hidden_layers": 3}, {"tie_word_embeddings": True}])
def test_the_state_of_another_model_is_refused(
    tiny_model: Make, make_shards: MakeShards, tmp_path: Path, changes: dict[str, Any]
) -> None:
    loader = Loader(make_shards(LENGTHS), 32, 64, 64)
    Trainer(tiny_model(), NextToken(), loader, config(1), state_folder=tmp_path / "state").fit()
    other = Trainer(tiny_model(**changes), NextToken(), loader, config(2), state_folder=tmp_path / "state")
    before = snapshot(other)
    with pytest.raises(CheckpointError, match=r"another model(.|\n)*Delete"):
        other.fit()
    assert_same(snapshot(other), before)


def test_the_state_of_another_optimizer_is_refused(tiny_model: Make, make_shards: MakeShards, tmp_path: Path) -> None:
    loader = Loader(make_shards(LENGTHS), 32, 64, 64)
    Trainer(tiny_model(), NextToken(), loader, config(1), state_folder=tmp_path / "state").fit()
    settings = config(2, optimizer=OptimizerConfig("muon"))
    other = Trainer(tiny_model(), NextToken(), loader, settings, state_folder=tmp_path / "state")
    before = snapshot(other)
    with pytest.raises(CheckpointError, match="Muon here"):
        other.fit()
    assert_same(snapshot(other), before)


def test_only_adapters_are_saved_and_they_resume(tiny_model: Make, make_shards: MakeShards, tmp_path: Path) -> None:
    loader = Loader(make_shards(LENGTHS), 32, 64, 32)

    def trainer(source: BatchSource, folder: Path | None = None) -> Trainer:
        torch.manual_seed(0)
        model = apply_lora(tiny_model(), LoraConfig(rank=2, dropout=0.3))  # draws random numbers in each step
        return Trainer(model, NextToken(), source, config(6), state_folder=folder)

    whole = trainer(loader)
    frozen = {name: p.detach().clone() for name, p in whole.model.named_parameters() if not p.requires_grad}
    whole.fit()
    with pytest.raises(KeyboardInterrupt):
        trainer(Watched(loader, ctrl_c(signal.SIGINT, 2)), tmp_path / "state").fit()
    state = load_state(tmp_path / "state")
    assert state is not None
    kept = [name for name in state.tensors if not name.startswith("random/")]
    assert kept
    assert all(".lora_" in name for name in kept)
    resumed = trainer(loader, tmp_path / "state")
    resumed.fit()
    assert_same(snapshot(resumed), snapshot(whole))
    assert all(torch.equal(p, frozen[n]) for n, p in resumed.model.named_parameters() if n in frozen)


# What is told ---------------------------------------------------------------------------------------------------------


def test_a_row_tells_of_all_steps_since_the_one_before(
    tiny_model: Make, make_shards: MakeShards, tmp_path: Path
) -> None:
    shards = make_shards(LENGTHS)
    logs = {}
    for every in (1, 4):
        logs[every] = MetricsLog(tmp_path / f"{every}.jsonl")
        loader = Loader(shards, 32, 64, 32)
        Trainer(tiny_model(), NextToken(), loader, config(10, log_every=every), metrics=logs[every]).fit()
    single, grouped = logs[1].read(), logs[4].read()
    assert [row["step"] for row in grouped] == [4, 8, 10]
    means = [np.mean([row["loss"] for row in single[a:b]]) for a, b in ((0, 4), (4, 8), (8, 10))]
    assert [row["loss"] for row in grouped] == pytest.approx(means)
    for row in grouped:
        same = single[row["step"] - 1]
        assert all(row[key] == same[key] for key in ("grad_norm", "lr_factor", "tokens", "stage"))
    expected = sum(int((b.document_ids >= 0).sum()) for step in range(10) for b in loader.micro_batches(step))
    assert grouped[-1]["tokens"] == expected
    assert all(row["memory"] > 0 and row["tokens_per_second"] > 0 for row in grouped)
    assert [row["seconds"] for row in grouped] == sorted(row["seconds"] for row in grouped)


def test_validation_joins_the_rows_when_it_is_due_and_leaves_training_alone(
    tiny_model: Make, make_shards: MakeShards, tmp_path: Path
) -> None:
    loader, modes = Loader(make_shards(LENGTHS), 32, 64, 32), []

    def validate(model: Transformer) -> dict[str, float]:
        modes.append((model.training, torch.is_grad_enabled()))
        return {"held_out_loss": float(len(modes))}

    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    settings = config(10, log_every=4, validate_every=3)
    watched = Trainer(tiny_model(), NextToken(), loader, settings, metrics=metrics, validate=validate)
    watched.fit()
    rows = [(row["step"], row.get("held_out_loss")) for row in metrics.read()]
    assert rows == [(3, 1.0), (4, None), (6, 2.0), (8, None), (9, 3.0), (10, 4.0)]
    assert set(modes) == {(False, False)}
    alone = Trainer(tiny_model(), NextToken(), loader, config(10))
    alone.fit()
    assert_same(snapshot(watched), snapshot(alone))


def test_without_a_folder_nothing_is_written(
    tiny_model: Make, make_shards: MakeShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader(make_shards(LENGTHS), 32, 64, 32)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(KeyboardInterrupt):
        Trainer(tiny_model(), NextToken(), Watched(loader, ctrl_c(signal.SIGINT, 1)), config(3)).fit()
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize(
    "settings",
    [{"steps": 0}, {"log_every": 0}, {"grad_clip": -1.0}, {"dtype": "float16"}, {"dtype": "float64"}, {"dtype": "x"}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        TrainConfig(**settings)
