"""`puna plan`: what a model of a size costs, from its shape alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from puna.base.command_line import SETTINGS


@click.command("plan", context_settings=SETTINGS)
@click.argument("size", required=False)
@click.option("--context", "tokens", default=0, help="Context length to plan for (default: the model's longest).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(size: str | None, tokens: int, as_json: bool) -> None:
    """Print the parameters, computation and memory of SIZE: a named size or a checkpoint folder; all without SIZE."""
    from puna.base.files import read_json
    from puna.model.config import from_hf, named_size, size_names

    if size and (config_file := Path(size) / "config.json").exists():
        configs = {size: from_hf(read_json(config_file))}
    else:
        configs = {name: named_size(name) for name in ([size] if size else size_names())}
    plans = {name: _plan(config, tokens or config.max_position_embeddings) for name, config in configs.items()}
    if as_json:
        click.echo(json.dumps(plans))
        return
    _print(plans)


def _plan(config: Any, tokens: int) -> dict[str, float]:
    from puna.model import budget

    training = budget.training_bytes(config, min(tokens, 8192), recompute=True)
    return {
        "parameters": budget.parameters(config),
        "context": tokens,
        "forward_flops_per_token": budget.forward_flops_per_token(config, tokens),
        "weights_bfloat16": budget.weight_bytes(config),
        "weights_int4": budget.weight_bytes(config, "int4"),
        "kv_cache_per_token": budget.cache_bytes_per_token(config),
        "kv_cache": budget.cache_bytes_per_token(config) * tokens,
        "training_adamw": training.total,
    }


def _print(plans: dict[str, dict[str, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from puna.base.files import format_bytes

    table = Table(box=None, header_style="bold")
    for heading in (
        "size",
        "parameters",
        "weights bf16",
        "int4",
        "context",
        "KV cache",
        "GFLOP/token",
        "AdamW training",
    ):
        table.add_column(heading, justify="left" if heading == "size" else "right")
    for name, plan in plans.items():
        table.add_row(
            name,
            f"{plan['parameters']:,}",
            format_bytes(plan["weights_bfloat16"]),
            format_bytes(plan["weights_int4"]),
            f"{plan['context']:,.0f}",
            format_bytes(plan["kv_cache"]),
            f"{plan['forward_flops_per_token'] / 1e9:,.2f}",
            format_bytes(plan["training_adamw"]),
        )
    console = Console()
    # A pipe has no width; rich would cut the numbers at 80 columns.
    (console if console.is_terminal else Console(width=140)).print(table)
    click.echo(
        "Training: float32 weights, gradients and AdamW states; micro-batches of up to 8,192 tokens, recomputed."
    )
