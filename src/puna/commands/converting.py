"""`puna convert`: a checkpoint in another layout, another dtype, or with an adapter folded in."""

from __future__ import annotations

from pathlib import Path

import click

from puna.base.command_line import SETTINGS

_WRITTEN_OUT = "bfloat16"  # of what was quantised


@click.command("convert", context_settings=SETTINGS)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--to", "layout", type=click.Choice(["hf", "meta"]), default="hf", show_default=True)
@click.option("--dtype", default=None, help="float32, bfloat16 or float16; by default the dtype is kept.")
@click.option("--shards", default=1, show_default=True, help="Files of a Meta folder.")
@click.option("--adapter", type=click.Path(path_type=Path), help="Fold this LoRA adapter (PEFT's format) in first.")
@click.option("--allow-pickle", is_flag=True, help="Read Meta's .pth files (weights only, in a child process).")
def command(
    source: Path, out: Path, layout: str, dtype: str | None, shards: int, adapter: Path | None, allow_pickle: bool
) -> None:
    """Write the checkpoint SOURCE to OUT: Hugging Face's or Meta's layout, a run folder, or a GGUF file.

    A GGUF file and a quantised folder are written out as floating-point numbers: bfloat16, unless --dtype says
    otherwise. The other way is `puna export`.
    """
    from puna.export.compressed_tensors import is_quantized
    from puna.model import lora
    from puna.model.checkpoint import Checkpoint
    from puna.recipes.run_folder import checkpoint_folder, open_floats

    path = checkpoint_folder(source)
    if path.is_file() or is_quantized(path):
        dtype = dtype or _WRITTEN_OUT
    checkpoint = open_floats(path, dtype or _WRITTEN_OUT, allow_pickle=allow_pickle)
    if adapter:
        model = lora.merge(lora.load_adapter(checkpoint.model(dtype=None), adapter))
        checkpoint = Checkpoint.of(model, checkpoint.tokenizer, checkpoint.card, checkpoint.generation)
    if layout == "meta":
        checkpoint.save_meta(out, shards, dtype=dtype)
    else:
        checkpoint.save(out, dtype=dtype)
    click.echo(f"saved to {out}")
