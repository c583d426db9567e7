"""Which shape, vocabulary, optimizer and schedule learn most in the quickstart's minutes, on this machine?

Each variant changes the quickstart's recipe in one place and pre-trains for the same processor time, on one thread: its
first steps are timed in processor seconds, which other work on the machine hardly changes, and it then trains on as
many tokens as it can see in that time, which is where its schedule ends. What counts is bits per byte on the same
held-out documents. Variants that stand in the results file already are not run again, so a long table can be made in
parts, and two parts at a time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from puna.base.config import override
from puna.base.files import read_jsonl
from puna.base.progress import MetricsLog, Silent
from puna.data import corpus
from puna.engine.local import LocalModel
from puna.evals.bits import bits_per_byte
from puna.evals.compression import xz_bits
from puna.model.budget import parameters
from puna.recipes.raising import RaiseConfig, raise_model, scratch
from puna.recipes.run_folder import checkpoint_folder

ADAMW = ["pretrain.optimizer.kind=adamw", "pretrain.optimizer.weight_decay=0.1", "pretrain.grad_clip=1.0"]
VARIANTS: dict[str, list[str]] = {
    "the recipe": [],
    "AdamW, lr 1e-3": [*ADAMW, "pretrain.optimizer.lr=1e-3", "pretrain.optimizer.embedding_lr=1e-3"],
    "AdamW, lr 3e-3": [*ADAMW, "pretrain.optimizer.lr=3e-3", "pretrain.optimizer.embedding_lr=3e-3"],
    "Muon, lr 0.02": ["pretrain.optimizer.muon_lr=0.02"],
    "Muon, lr 0.005": ["pretrain.optimizer.muon_lr=0.005"],
    "cosine to 0.1": ["pretrain.schedule.kind=cosine", "pretrain.schedule.final_ratio=0.1"],
    "WSD, last fifth": ["pretrain.schedule.decay_share=0.2"],
    "vocabulary 1280": ["tokenizer.vocab_size=1280"],
    "vocabulary 4352": ["tokenizer.vocab_size=4352"],
    "width 128": ["model.hidden_size=128", "model.intermediate_size=384", "model.num_attention_heads=2"],
    "width 256": ["model.hidden_size=256", "model.intermediate_size=768", "model.num_attention_heads=4"],
    "4 layers": ["model.num_hidden_layers=4"],
    "8 layers": ["model.num_hidden_layers=8"],
    "rows of 256 to the end": ["pretrain.final_context_length=0"],
    "rows of 512 throughout": ["pretrain.context_length=512"],
    "steps of 16,384 tokens": ["pretrain.batch_tokens=16384"],
    "steps of 4,096 tokens": ["pretrain.batch_tokens=4096"],
}
_TIMED_TOKENS = 5 * 8192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0, help="of processor time, for each variant")
    parser.add_argument("--size", default="cria-3m")
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--results", type=Path, default=Path("runs/recipe.jsonl"), help="rows are added here")
    arguments = parser.parse_args()
    log = MetricsLog(arguments.results)
    done = {row["variant"] for row in read_jsonl(arguments.results)} if arguments.results.exists() else set()
    torch.set_num_threads(1)
    for name in arguments.only or VARIANTS:
        if name not in done:
            log.write(variant=name, **measure(arguments.size, VARIANTS[name], arguments.minutes))
            print(f"{name}: {log.read()[-1]['bits_per_byte']:.4f}", flush=True)
    report(log.read(), arguments.minutes)


def pretrained(folder: Path, size: str, settings: list[str], tokens: int) -> tuple[RaiseConfig, dict[str, Any], float]:
    """The settings, metrics and processor seconds of a pre-training; what comes before it is not counted."""
    config = override(scratch(size), [*settings, f"pretrain.tokens={tokens}"])
    raise_model(config, folder, Silent(), until="index")
    started = time.process_time()
    records = raise_model(config, folder, Silent(), until="pretrain")
    return config, records["pretrain"].metrics, time.process_time() - started


def measure(size: str, settings: list[str], minutes: float) -> dict[str, Any]:
    """Pre-trains one variant and scores it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (_, few, start), (_, more, end) = (pretrained(folder, size, settings, n * _TIMED_TOKENS) for n in (1, 3))
        rate = (more["tokens"] - few["tokens"]) / (end - start)
        config, metrics, seconds = pretrained(folder, size, settings, round(rate * 60 * minutes))
        model = LocalModel.load(checkpoint_folder(folder))
        held_out = corpus.read(folder / "split/held_out")
        bits = bits_per_byte(
            model, lambda text: model.tokenizer.encode(text, bos=True), held_out, config.pretrain.longest_context
        )
        return {
            "bits_per_byte": bits.value,
            "parameters": parameters(model.config),
            "tokens": metrics["tokens"],
            "processor_seconds": seconds,
            "tokens_per_processor_second": metrics["tokens"] / seconds,
            "xz_given": xz_bits(corpus.read(folder / "split/train"), held_out).given,
        }


def report(rows: list[dict[str, Any]], minutes: float) -> None:
    rows = sorted(rows, key=lambda row: row["bits_per_byte"])
    print(f"\nbits per byte after {minutes:g} minutes of processor time\n")
    print(f"{'':26}{'bits/byte':>10}{'parameters':>12}{'tokens':>12}{'tokens/s':>10}")
    for row in rows:
        print(
            f"{row['variant']:26}{row['bits_per_byte']:10.4f}{row['parameters']:12,}{row['tokens']:12,}"
            f"{row['tokens_per_processor_second']:10,.0f}"
        )
    values = {row["variant"]: round(row["bits_per_byte"], 4) for row in rows}
    ours = values.get("the recipe")
    result = {
        "question": f"bits per byte on held-out documents after {minutes:g} minutes of processor time",
        "ours": ours,
        "rivals": {name: value for name, value in values.items() if name != "the recipe"},
        "ratios": {name: round(value / ours, 4) for name, value in values.items()} if ours else {},
        "limit": {"xz -9e given the training text": round(rows[0]["xz_given"], 4)},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
