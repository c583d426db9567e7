"""What this machine allows: the speed of reading memory and of multiplying matrices, measured where it is asked.

One token of decoding reads every weight once, so its speed is bounded by bandwidth over bytes; a prompt multiplies
every weight with every token, so its speed is bounded by the peak of a large matrix product. A speed alone says little:
as a share of its limit it says how much is left to gain. Both are measured with the threads that torch uses in this
process. Caches, latency and the work between the products are left out, so a limit is never reached whole.

Shapes: M rows, N outputs, K inputs, V vocab_size, D hidden_size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from puna.base.errors import ConfigError
from puna.model.budget import forward_flops_per_token
from puna.model.config import ModelConfig

READ_BYTES = 512 << 20  # of memory for the reading: far above what a processor's caches hold
_MNK = {"cpu": (2048, 4096, 4096), "cuda": (8192, 8192, 8192)}
_REPEATS = 9
_SECONDS = 4.0  # of repeating; a slow machine repeats less
_WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """A machine as measured.

    Attributes:
        read_bytes_per_second: reading memory that no cache holds.
        matmul_flops: operations a second of a large matrix product, by the name of its dtype.
        threads: of torch, on the CPU; 1 on another device.
    """

    read_bytes_per_second: float
    matmul_flops: dict[str, float]
    threads: int

    def decode_tokens(self, bytes_per_token: float) -> float:
        """The most tokens a second of one sequence, where a token reads so many bytes."""
        return self.read_bytes_per_second / bytes_per_token

    def prefill_tokens(self, config: ModelConfig, tokens: int, dtype: str) -> float:
        """The most tokens a second of a prompt of so many, in products of `dtype`."""
        return self.matmul_flops[dtype] / prefill_flops_per_token(config, tokens)


def measure(dtypes: Sequence[str] = ("bfloat16", "float32"), device: torch.device | None = None) -> Limits:
    """Measures the machine, in a few seconds; other work on it shows in the result.

    Args:
        dtypes: of the matrix products.
        device: None for the CPU.
    """
    device = device or torch.device("cpu")
    flops = {dtype: matmul_peak(getattr(torch, dtype), device) for dtype in dtypes}
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return Limits(read_bandwidth(device), flops, threads)


def read_bandwidth(device: torch.device | None = None, size: int = READ_BYTES) -> float:
    """Bytes a second of summing `size` bytes of float32, the best of several times."""
    memory = torch.ones(size // 4, device=device or torch.device("cpu"))
    return memory.nbytes / best_seconds(memory.sum, memory.device)


def matmul_peak(dtype: torch.dtype, device: torch.device | None = None, shape: Sequence[int] = ()) -> float:
    """Operations a second of one product (M, K) x (N, K)^T, the best of several times.

    Args:
        dtype: of both factors and the result.
        device: None for the CPU.
        shape: M, N and K; by default as large as the device needs to be at its best.
    """
    device = device or torch.device("cpu")
    if not dtype.is_floating_point:
        raise ConfigError(f"The peak of {dtype} products is not measured.", hint="Use a floating-point dtype.")
    M, N, K = shape or _MNK.get(device.type, _MNK["cpu"])
    x_MK = torch.ones((M, K), dtype=dtype, device=device)
    weight_NK = torch.ones((N, K), dtype=dtype, device=device)
    with torch.inference_mode():
        return 2 * M * N * K / best_seconds(lambda: torch.mm(x_MK, weight_NK.T), device)


def best_seconds(action: Callable[[], object], device: torch.device) -> float:
    """The shortest of several times that `action` takes, after a warm-up."""
    for _ in range(_WARM_UP):
        action()
    best, ends = float("inf"), time.perf_counter() + _SECONDS
    for _ in range(_REPEATS):
        _wait_for(device)
        started = time.perf_counter()
        action()
        _wait_for(device)
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() > ends:
            break
    return best


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def prefill_flops_per_token(config: ModelConfig, tokens: int) -> float:
    """Multiplications and additions for each token of a prompt of `tokens`; only the last one needs the output matrix.

    Counted as `forward_flops_per_token` does: two for each weight of the layers, and attention to half of the prompt.
    """
    head = 2 * config.vocab_size * config.hidden_size
    return forward_flops_per_token(config, tokens) - head * (1 - 1 / tokens)


def bytes_per_token(model: nn.Module) -> int:
    """Bytes of weights that decoding one token reads: all parameters and buffers of `model`, each memory once.

    Of an embedding that is not the output matrix too, one row is read, which is left out.
    """
    head = getattr(model, "lm_head", None)
    skipped = {tensor.data_ptr() for tensor in model.get_submodule("embed_tokens").parameters()} if head else set()
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    return sum(size for address, size in tensors.items() if address not in skipped)
