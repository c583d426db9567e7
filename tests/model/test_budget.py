from __future__ import annotations

import pytest
import torch

from puna.model import budget
from puna.model.config import named_size, size_names
from puna.model.transformer import Transformer

GiB = 1 << 30
# The Llama 3 Herd of Models (arXiv 2407.21783), table 3, and the model cards:
# name -> (parameters, cache bytes of a token in bf16, GiB of cache at 131,072 tokens, tensors of a checkpoint)
PUBLISHED = {
    "llama-3.1-8b": (8_030_261_248, 131_072, 16, 291),
    "llama-3.1-70b": (70_553_706_496, 327_680, 40, 723),
    "llama-3.1-405b": (405_853_388_800, 516_096, 63, 1137),
    "llama-3.2-1b": (1_235_814_400, 32_768, 4, 146),
    "llama-3.2-3b": (3_212_749_824, 114_688, 14, 254),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_table(name: str) -> None:
    config = named_size(name)
    parameters, per_token, gib, tensors = PUBLISHED[name]
    assert budget.parameters(config) == parameters
    assert budget.cache_bytes_per_token(config) == per_token
    assert budget.cache_bytes_per_token(config) * 131_072 == gib * GiB
    assert budget.tensors(config) == tensors
    assert budget.weight_bytes(config) == 2 * parameters


@pytest.mark.parametrize("name", size_names())
def test_counts_are_those_of_the_model(name: str) -> None:
    config = named_size(name)
    with torch.device("meta"):
        model = Transformer(config)
    assert budget.parameters(config) == sum(p.numel() for p in model.parameters())
    assert budget.tensors(config) == len(list(model.parameters()))


@pytest.mark.parametrize("tied", [False, True])
def test_operations_are_those_of_the_products(tiny, random_model, tied: bool) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = tiny(tie_word_embeddings=tied, head_dim=20)
    model = random_model(config)
    tokens = 16
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, tokens, dtype=torch.int64))
    counts = counter.get_flop_counts()["Global"]
    products = sum(count for operation, count in counts.items() if "attention" not in str(operation))
    assert products == 2 * budget.matrix_parameters(config) * tokens
    # Attention: the causal half of two products of (H, T, K) with (H, T, K).
    causal = 4 * config.num_attention_heads * config.head_dim * tokens * (tokens + 1) / 2 * config.num_hidden_layers
    assert budget.forward_flops_per_token(config, tokens) * tokens == products + causal
    assert budget.training_flops_per_token(config, tokens) == 3 * budget.forward_flops_per_token(config, tokens)


def test_bytes_follow_the_dtype() -> None:
    config = named_size("llama-3.1-8b")
    assert budget.weight_bytes(config, "int4") * 8 == budget.weight_bytes(config, "float32")
    assert budget.cache_bytes_per_token(config, "fp8") * 2 == budget.cache_bytes_per_token(config)


def test_training_memory_has_its_known_parts() -> None:
    config = named_size("llama-3.2-1b")
    count = budget.parameters(config)
    adam = budget.training_bytes(config, 4096)
    assert adam.weights + adam.gradients + adam.optimizer == 16 * count
    assert adam.total == adam.weights + adam.gradients + adam.optimizer + adam.activations
    assert budget.training_bytes(config, 4096, states=1).optimizer == 4 * count
    assert budget.training_bytes(config, 8192).activations == 2 * adam.activations
    assert budget.training_bytes(config, 4096, recompute=True).activations < adam.activations / 5
