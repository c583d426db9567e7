"""`puna bench`: how fast a model answers on this machine, beside what the machine allows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from puna.base.command_line import SETTINGS

if TYPE_CHECKING:
    from puna.engine.local import LocalModel
    from puna.tokenizer import Tokenizer

# What --format names: a recipe of `puna quantize`, and the format of the output matrix.
FORMATS = {"bf16": ("", ""), "int8": ("int8", "int8"), "fp8": ("fp8", "fp8"), "int4": ("int4-g32", "int8")}
CONTEXT = 128  # tokens that are there before decoding is timed
_EMBEDDING_STD = 0.02


@click.command("bench", context_settings=SETTINGS)
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--size", default="cria-150m", show_default=True, help="Without PATH: a named size, of random weights.")
@click.option(
    "--format", "format", default="bf16", show_default=True, type=click.Choice(list(FORMATS)), help="Of them."
)
@click.option("--prompt", default=512, show_default=True, type=click.IntRange(2), help="Tokens of a prompt.")
@click.option("--tokens", default=64, show_default=True, type=click.IntRange(2), help="Tokens of an answer.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Of which the median is given.")
@click.option("--dtype", default="auto", show_default=True, help="Of the computation: float32, bfloat16 or float16.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool, **options: Any) -> None:
    """Time the model in PATH (a run folder or a checkpoint), or random weights of a size, on this machine.

    A token of an answer reads all weights, a prompt multiplies with all of them: both speeds are shown beside the
    limit that bandwidth and arithmetic set here, measured in the same run.
    """
    result = bench(**options)
    if as_json:
        click.echo(json.dumps(result))
    else:
        show(result)


def bench(
    path: Path | None, size: str, format: str, prompt: int, tokens: int, rounds: int, dtype: str, device: str
) -> dict[str, Any]:
    """The figures: speeds with their limits, and what they were measured with."""
    from puna.base.device import describe_machine, fast_dtype, peak_memory, resolve_device
    from puna.engine import limits
    from puna.kernels.build import status
    from puna.model.budget import cache_bytes_per_token
    from puna.recipes.run_folder import load_model

    place = resolve_device(device)
    chosen = str(fast_dtype(place)).removeprefix("torch.") if dtype == "auto" else dtype
    model = load_model(path, chosen, str(place)) if path else random_model(size, format, chosen, str(place))
    size_read = limits.bytes_per_token(model.model)
    decode, prefill = time_model(model, prompt, tokens, rounds)
    machine = limits.measure((chosen,), place)
    context = CONTEXT + tokens / 2
    bound = machine.decode_tokens(size_read + context * cache_bytes_per_token(model.config))
    kernels = status()
    return {
        "model": str(path) if path else f"{size}, random weights, {format}",
        "bytes_per_token": size_read,
        "decode": _speed(decode, bound),
        "prefill": _speed(prefill, machine.prefill_tokens(model.config, prompt, chosen)),
        "prompt_tokens": prompt,
        "bandwidth": machine.read_bytes_per_second,
        "matmul_flops": machine.matmul_flops[chosen],
        "dtype": chosen,
        "threads": machine.threads,
        "kernels": kernels.instruction_set if kernels.available else "none",
        "kernels_reason": kernels.reason,
        "peak_memory": peak_memory(),
        "machine": describe_machine(),
    }


def _speed(value: float, limit: float) -> dict[str, float]:
    return {"tokens_per_second": value, "limit": limit, "share": value / limit}


def time_model(model: LocalModel, prompt: int, tokens: int, rounds: int) -> tuple[float, float]:
    """Tokens a second of an answer and of a prompt, medians; no prompt shares its beginning with another.

    Raises:
        InputError: a prompt with its answer that is longer than the model's context.
    """
    import random
    import statistics

    from puna.core.completion import SamplingParams

    draw = random.Random(0)

    def seconds(length: int, count: int) -> tuple[float, float, int]:
        ids = [draw.randrange(model.tokenizer.base_size) for _ in range(length)]
        usage = model.generate(ids, SamplingParams(temperature=0, max_tokens=count)).usage
        return usage.prefill_seconds, usage.decode_seconds, usage.completion_tokens

    seconds(prompt, 2)  # what is made at the first use
    decoded, filled = [], []
    for _ in range(rounds):
        filled.append(prompt / seconds(prompt, 1)[0])
        _, taken, count = seconds(CONTEXT, tokens)
        # A model that has been trained may end its answer at once.
        if count > 1:
            decoded.append((count - 1) / taken)
    return statistics.median(decoded or [0.0]), statistics.median(filled)


def random_model(size: str, format: str, dtype: str, device: str, seed: int = 0) -> LocalModel:
    """Random weights of a named size, rounded to a format, with a tokenizer of no language.

    The rows of the special tokens in the output matrix are zero, so that none of them ends an answer.
    """
    import torch

    from puna.base.device import resolve_dtype
    from puna.engine.local import LocalModel
    from puna.engine.prepare import prepare
    from puna.model.config import named_size
    from puna.model.init import InitConfig, initialize
    from puna.model.transformer import without_memory
    from puna.quant.apply import quantize_model
    from puna.quant.plan import from_recipe

    config = named_size(size)
    tokenizer = plain_tokenizer(config.vocab_size)
    model = without_memory(config).to(resolve_dtype(dtype)).to_empty(device=device)
    initialize(model, seed, InitConfig(_EMBEDDING_STD, linear_gain=1.0, zero_residual=False))
    with torch.no_grad():
        model.head_weight_VD[tokenizer.base_size :] = 0
    recipe, head = FORMATS[format]
    if recipe:
        quantize_model(model, from_recipe(recipe, config, head))
    return LocalModel(prepare(model.requires_grad_(False)), tokenizer)


def plain_tokenizer(vocab_size: int) -> Tokenizer:
    """A tokenizer of exactly `vocab_size` ids: all bytes, all pairs of bytes, triples, and the special tokens."""
    from puna.tokenizer import Tokenizer
    from puna.tokenizer.special import special_count

    count = vocab_size - special_count()
    tokens = [bytes([byte]) for byte in range(256)]
    width = 2
    while len(tokens) < count:
        missing = min(count - len(tokens), 256**width)
        tokens += [number.to_bytes(width, "big") for number in range(missing)]
        width += 1
    return Tokenizer({token: rank for rank, token in enumerate(tokens[:count])})


def show(result: dict[str, Any]) -> None:
    from puna.base.files import format_bytes

    size = format_bytes(result["bytes_per_token"])
    click.echo(f"{result['model']}: {size} read for a token; {result['dtype']}, {result['threads']} threads")
    reason = f" ({result['kernels_reason']})" if result["kernels_reason"] else ""
    click.echo(f"kernels: {result['kernels']}{reason}\n")
    click.echo(f"{'':16}{'tokens/s':>10}{'limit':>10}{'share':>8}")
    for name, label in (("decode", "decode"), ("prefill", f"prompt of {result['prompt_tokens']}")):
        speed = result[name]
        click.echo(f"{label:16}{speed['tokens_per_second']:10,.1f}{speed['limit']:10,.1f}{speed['share']:8.0%}")
    click.echo(
        f"\nmeasured here: reading {result['bandwidth'] / 1e9:.1f} GB/s, products "
        f"{result['matmul_flops'] / 1e9:,.0f} GFLOP/s; peak memory {format_bytes(result['peak_memory'])}"
    )
