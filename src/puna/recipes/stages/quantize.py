"""Quantisation: the run's last model in fewer bits, calibrated on its own conversations, and what that costs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from puna.base.device import resolve_device
from puna.base.errors import CheckpointError
from puna.base.files import write_json
from puna.data import corpus
from puna.data.conversations import read_conversations
from puna.export import compressed_tensors
from puna.export.folder import card_of
from puna.model.checkpoint import Checkpoint
from puna.quant.job import QuantConfig, compute_dtype, quantize
from puna.recipes.run_folder import CHECKPOINT
from puna.recipes.runner import StageContext
from puna.recipes.stages.questions import CONVERSATIONS
from puna.recipes.stages.split import HELD_OUT

TABLE = "quantization.json"


def quantize_run(context: StageContext, config: QuantConfig, device: str) -> Mapping[str, Any]:
    """Quantises the fine-tuned model, compares it on the held-out documents, and saves it in vLLM's layout."""
    checkpoint = Checkpoint.load(context.inputs["sft"] / CHECKPOINT)
    tokenizer = checkpoint.tokenizer
    if tokenizer is None:
        raise CheckpointError("The checkpoint has no tokenizer.", hint="Put its tokenizer.json into its folder.")
    conversations = read_conversations(context.inputs["questions"] / CONVERSATIONS)
    calibration = [tokenizer.chat.render_for_training(conversation)[0] for conversation in conversations]
    documents = corpus.read(context.inputs["split"] / HELD_OUT)
    held_out = [tokenizer.encode(document.text, bos=True) for document in documents] or calibration
    dtype, place = compute_dtype(checkpoint.config), resolve_device(device)
    made = quantize(
        lambda: checkpoint.model(dtype, place).requires_grad_(False),
        calibration,
        held_out,
        config,
        context.progress,
    )
    report = made.report
    card = replace(card_of(made.plan, checkpoint), metrics=report.to_json())
    compressed_tensors.save(context.folder / CHECKPOINT, made.model, made.plan, checkpoint, card=card)
    write_json(context.folder / TABLE, report.to_json())
    return {
        "recipe": report.recipe,
        "method": report.method,
        "bytes": report.bytes_quantized,
        "perplexity_change": report.perplexity_change,
        "kl": report.kl,
        "top1_agreement": report.top1_agreement,
        "table": report.rows(),
        "layers": [layer.error for layer in report.layers],
    }
