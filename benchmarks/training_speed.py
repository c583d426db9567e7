"""Tokens a second of training in the quickstart's shape: Puna's trainer beside a plain transformers loop.

Both train the same shape on the same random tokens with autocast to bfloat16. The rival is `LlamaForCausalLM` with
torch's fused AdamW, once with the quickstart's micro-batches and once with the whole batch in one pass; the better of
the two counts. Ours runs with AdamW, as the rival does, and with Muon, as the quickstart does. Each measurement is a
process of its own; they take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

CONTENDERS = ("puna adamw", "puna muon", "transformers micro", "transformers whole")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="cria-3m")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(measure(arguments.one, arguments.size, arguments.steps))
        return
    speeds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for number in range(arguments.rounds):
        for name in CONTENDERS:
            command = [
                sys.executable,
                __file__,
                "--one",
                name,
                "--size",
                arguments.size,
                "--steps",
                str(arguments.steps),
            ]
            speeds[name].append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        print(
            f"round {number + 1}: " + ", ".join(f"{name} {values[-1]:,.0f}" for name, values in speeds.items()),
            flush=True,
        )
    report(arguments.size, {name: statistics.median(values) for name, values in speeds.items()})


def report(size: str, medians: dict[str, float]) -> None:
    rival = max(value for name, value in medians.items() if name.startswith("transformers"))
    print(f"\n{'':24}{'tokens/s':>10}{'ratio':>8}")
    for name, value in medians.items():
        print(f"{name:24}{value:10,.0f}{value / rival:8.2f}")
    ratios = {name: round(value / rival, 3) for name, value in medians.items() if name.startswith("puna")}
    result = {
        "question": f"tokens/s of training, {size}, autocast bfloat16",
        "ours": round(medians["puna adamw"], 1),
        "rivals": {name: round(value, 1) for name, value in medians.items() if name.startswith("transformers")},
        "ratios": ratios,
        "limit": {"torch bf16 matmul FLOP/s": matmul_limit(), "FLOP/s of ours": flops(size) * medians["puna adamw"]},
    }
    print(json.dumps(result))


def flops(size: str) -> float:
    from puna.model.budget import training_flops_per_token
    from puna.model.config import named_size
    from puna.recipes.raising import scratch

    return training_flops_per_token(named_size(size), scratch(size).pretrain.context_length)


def matmul_limit() -> float:
    """FLOP/s of one large bf16 product."""
    import torch

    a, b = torch.randn(4096, 1024, dtype=torch.bfloat16), torch.randn(1024, 4096, dtype=torch.bfloat16)
    times = []
    for _ in range(12):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return round(2 * 4096 * 4096 * 1024 / statistics.median(times))


def measure(name: str, size: str, steps: int) -> float:
    library, kind = name.split()
    step, tokens = (puna_step if library == "puna" else transformers_step)(size, kind)
    for _ in range(2):
        step()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return steps * tokens / (time.perf_counter() - started)


def puna_step(size: str, kind: str):
    from dataclasses import replace

    import numpy as np

    from puna.base.device import keep_freed_memory
    from puna.core.tokens import Batch
    from puna.model.config import named_size
    from puna.model.init import initialize
    from puna.model.transformer import Transformer
    from puna.recipes.raising import scratch
    from puna.train.objectives import NextToken
    from puna.train.trainer import Trainer

    recipe, shape = scratch(size).pretrain, named_size(size)
    config = replace(recipe.train_config(1000), optimizer=replace(recipe.optimizer, kind=kind))
    rows, context = recipe.micro_batch_tokens // recipe.context_length, recipe.context_length
    generator = np.random.default_rng(0)

    class Random:
        def micro_batches(self, step: int) -> list[Batch[np.ndarray]]:
            made = []
            for _ in range(recipe.batch_tokens // recipe.micro_batch_tokens):
                ids = generator.integers(0, shape.vocab_size, (rows, context + 1))
                positions = np.broadcast_to(np.arange(context), (rows, context)).copy()
                whole = np.ones((rows, context), dtype=bool)
                made.append(Batch(ids[:, :-1].copy(), ids[:, 1:].copy(), positions, np.zeros_like(positions), whole))
            return made

    keep_freed_memory()
    model = initialize(Transformer(shape), 0).train()
    trainer = Trainer(model, NextToken(), Random(), config)
    counter = iter(range(10**9))
    return lambda: trainer.train_step(next(counter)), recipe.batch_tokens


def transformers_step(size: str, kind: str):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from puna.model.config import named_size, to_hf
    from puna.recipes.raising import scratch

    recipe, shape = scratch(size).pretrain, named_size(size)
    settings = {k: v for k, v in to_hf(shape, "float32").items() if k not in ("architectures", "dtype", "torch_dtype")}
    model = LlamaForCausalLM(LlamaConfig(**settings)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    micro = recipe.batch_tokens if kind == "whole" else recipe.micro_batch_tokens
    parts = recipe.batch_tokens // micro

    def step() -> None:
        for _ in range(parts):
            ids = torch.randint(0, shape.vocab_size, (micro // recipe.context_length, recipe.context_length))
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(ids, labels=ids).loss / parts
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, recipe.batch_tokens


if __name__ == "__main__":
    main()
