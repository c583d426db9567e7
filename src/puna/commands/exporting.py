"""`puna export`: a model in the files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from puna.base.command_line import SETTINGS

if TYPE_CHECKING:
    from puna.export.verify import Agreement

_TARGETS = ("gguf", "compressed-tensors", "trtllm")
_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")
_PROBE = 64  # tokens
_LARGEST_ERROR = 0.1  # of the logits' spread; rounding of inputs to 8 bits costs about 0.01


@click.command("export", context_settings=SETTINGS)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Choice(_TARGETS), default="gguf", show_default=True)
@click.option("--type", "kind", type=click.Choice(_TYPES), help="Numbers of a GGUF file; q8_0 by default.")
@click.option("--recipe", help="Quantise unquantised weights so, rounded to nearest; fp8 by default. Not for GGUF.")
@click.option(
    "--check", type=click.Path(path_type=Path), help="Run the result in llama.cpp or transformers of this Python."
)
def command(source: Path, out: Path, target: str, kind: str | None, recipe: str | None, check: Path | None) -> None:
    """Write the model SOURCE to OUT for llama.cpp (gguf), vLLM and transformers (compressed-tensors), or TensorRT-LLM.

    SOURCE is a checkpoint, a run folder, a folder that puna quantize has written, or a GGUF file. A check needs the
    memory of the model in float32.
    """
    from puna.recipes.run_folder import checkpoint_folder

    if check and target == "trtllm":
        raise click.UsageError("--check cannot run TensorRT-LLM, which needs a GPU to load anything.")
    source = checkpoint_folder(source)
    if target == "gguf":
        if recipe:
            raise click.UsageError("--recipe is for the other targets; a GGUF file has a --type.")
        _to_gguf(source, out, kind or "q8_0")
    else:
        if kind:
            raise click.UsageError("--type is for GGUF files; the other targets have a --recipe.")
        _to_folder(source, out, target, recipe)
    click.echo(f"saved to {out}")
    if check:
        click.echo(f"checked: {_checked(out, target, check)}")


def _to_gguf(source: Path, out: Path, kind: str) -> None:
    from puna.export import gguf
    from puna.recipes.run_folder import open_floats

    gguf.save(out, open_floats(source), kind)


def _to_folder(source: Path, out: Path, target: str, recipe: str | None) -> None:
    from puna.export import compressed_tensors, trtllm
    from puna.export.quantized import torn_apart
    from puna.quant.apply import quantize_model
    from puna.quant.plan import from_recipe
    from puna.recipes.run_folder import open_floats

    checkpoint = open_floats(source)
    if compressed_tensors.is_quantized(source):
        if recipe:
            raise click.UsageError(f"{source} is quantised already; --recipe is for float weights.")
        plan, model = compressed_tensors.load(source)[1], compressed_tensors.load_model(source)
    else:
        plan = from_recipe(recipe or "fp8", checkpoint.config)
        model = quantize_model(checkpoint.model(dtype=None), plan)
    write = compressed_tensors.save if target == "compressed-tensors" else trtllm.save
    write(out, model, plan, checkpoint)
    if torn := torn_apart(plan, model.config):
        click.echo(f"vLLM will not load it: it wants one format for {torn[0]}. transformers will.", err=True)


def _checked(out: Path, target: str, python: Path) -> Agreement:
    """Compares the logits of another program with those of Puna for the same file."""
    import torch

    from puna.base.errors import CheckpointError
    from puna.export import compressed_tensors, gguf
    from puna.export.verify import compare, run

    model = gguf.load(out).model() if target == "gguf" else compressed_tensors.load_model(out, "float32")
    ids = [7 * place % model.config.vocab_size for place in range(1, _PROBE + 1)]
    with torch.inference_mode():
        expected_TV = model(torch.tensor([ids]))[0]
    answer = run("llama_cpp" if target == "gguf" else "transformers", python, out, ids)
    agreement = compare(answer.logits_TV, expected_TV)
    if agreement.relative_error > _LARGEST_ERROR:
        raise CheckpointError(f"{answer.program} runs {out} otherwise than Puna: {agreement}.")
    return agreement
