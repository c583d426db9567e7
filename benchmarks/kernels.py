"""How near to the memory's speed do the compiled kernels multiply, beside torch's own products?

Every format multiplies the same matrices, those of an MLP of Llama 3.2 1B, in turn and so many that no cache holds
them. One round measures each contender once, so that a machine's drift meets all alike; medians are reported, beside
the speed of reading memory that was measured in the same rounds. With --crossover the two paths of each product,
kernel and oneDNN, are timed at each number of tokens: that is where SMALL_M comes from.

Shapes: M tokens, K inputs, N outputs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.base.device import describe_machine, usable_cpus
from puna.kernels import linear
from puna.kernels.attention import decode_attention
from puna.kernels.build import library, status

N, K = 8192, 2048
TOKENS = (1, 2, 4, 8, 16, 64)
BYTES = 256 << 20  # of matrices that a contender goes through in turn
HEADS, KV_HEADS, HEAD_DIM, CONTEXT, PAGE = 32, 8, 64, 8192, 16


@dataclass(frozen=True)
class Contender:
    """A product with matrices of one format."""

    weights: list[tuple[Tensor, ...]]
    product: Callable[..., Tensor]
    family: str = ""  # the key of SMALL_M; "" for a rival

    @property
    def bytes_each(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.weights[0])

    def seconds(self, x_MK: Tensor) -> float:
        """Of one product, after all matrices have been gone through."""
        started = time.perf_counter()
        for weight in self.weights:
            self.product(x_MK, *weight)
        return (time.perf_counter() - started) / len(self.weights)


def several(make: Callable[[], tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    first = make()
    size = sum(tensor.numel() * tensor.element_size() for tensor in first)
    return [first, *(tuple(tensor.clone() for tensor in first) for _ in range(math.ceil(BYTES / size) - 1))]


def contenders() -> dict[str, Contender]:
    def bf16() -> tuple[Tensor, ...]:
        return (torch.randn(N, K).bfloat16(),)

    def int8() -> tuple[Tensor, ...]:
        return torch.randint(-127, 128, (N, K)).to(torch.int8), torch.rand(N)

    def fp8(blocked: bool) -> tuple[Tensor, ...]:
        return torch.randn(N, K).to(torch.float8_e4m3fn), torch.rand(N // 128, K // 128) if blocked else torch.rand(N)

    def int4(group: int) -> tuple[Tensor, ...]:
        packed = torch.randint(-(2**31), 2**31, (N, K // 8)).to(torch.int32)
        return packed, torch.rand(N, K // group).bfloat16()

    def int8_product(x: Tensor, w: Tensor, s: Tensor, rounds: bool = True) -> Tensor:
        return linear.int8_linear(x, w, s, quantize_activations=rounds)

    def fp8_product(x: Tensor, w: Tensor, s: Tensor, rounds: bool = True) -> Tensor:
        return linear.fp8_linear(x, w, s, quantize_activations=rounds, cap=1200.0)

    return {
        "bf16": Contender(several(bf16), linear.bf16_linear, "bf16"),
        "int8": Contender(several(int8), int8_product, "int8"),
        "int8 weights only": Contender(several(int8), lambda *a: int8_product(*a, rounds=False), "int8 weights only"),
        "fp8": Contender(several(lambda: fp8(False)), fp8_product, "fp8"),
        "fp8 blocks": Contender(several(lambda: fp8(True)), lambda *a: fp8_product(*a, rounds=False), "fp8"),
        "int4 g32": Contender(several(lambda: int4(32)), linear.int4_linear, "int4"),
        "int4 g128": Contender(several(lambda: int4(128)), linear.int4_linear, "int4"),
        "torch bf16": Contender(several(bf16), F.linear),
    }


def read_seconds(memory: Tensor) -> float:
    kernels = library()
    assert kernels is not None
    started = time.perf_counter()
    kernels.read(memory.data_ptr(), memory.numel() // 8, torch.get_num_threads())
    return time.perf_counter() - started


def attention_contenders() -> dict[str, tuple[Callable[[], Tensor], int]]:
    """Decoding one token after CONTEXT cached ones, with the bytes of the cache that it reads."""
    pages = CONTEXT // PAGE
    q = torch.randn(1, HEADS, HEAD_DIM).bfloat16()
    k, v = (torch.randn(pages, KV_HEADS, PAGE, HEAD_DIM).bfloat16() for _ in range(2))
    table, lengths = torch.randperm(pages).int().view(1, -1), torch.tensor([CONTEXT])
    k8, v8, scale = *(torch.randint(-127, 128, k.shape).to(torch.int8) for _ in range(2)), torch.rand(k.shape[:3])
    rows = [x.transpose(0, 1).reshape(1, KV_HEADS, CONTEXT, HEAD_DIM) for x in (k, v)]
    size = 2 * k.numel() * 2
    return {
        "attention bf16": (lambda: decode_attention(q, k, v, table, lengths), size),
        "attention int8": (lambda: decode_attention(q, k8, v8, table, lengths, scale, scale), size // 2),
        "torch attention bf16": (
            lambda: F.scaled_dot_product_attention(q.unsqueeze(2), *rows, enable_gqa=True),
            size,
        ),
    }


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(rounds: int) -> None:
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    reads, everyone, attentions = [], contenders(), attention_contenders()
    memory, loads = torch.ones(BYTES, dtype=torch.uint8), []  # zeros would all be one page
    inputs = {M: torch.randn(M, K).bfloat16() for M in TOKENS}
    for turn in range(rounds + 1):  # the first warms up
        loads.append(os.getloadavg()[0])
        for name, contender in everyone.items():
            reads.append(len(memory) / read_seconds(memory))
            for M, x in inputs.items():
                found[name, M].append(contender.seconds(x))
        for name, (call, _) in attentions.items():
            found[name, 1].append(min(timed(call) for _ in range(3)))
        if turn == 0:
            found.clear()
            reads.clear()
    seconds = {key: statistics.median(values) for key, values in found.items()}
    report(seconds, statistics.median(reads), everyone, attentions, loads)


def report(seconds, bandwidth: float, everyone, attentions, loads: list[float]) -> None:
    print(f"{status().instruction_set}, {torch.get_num_threads()} threads, load {loads[0]:.2f} to {max(loads):.2f}")
    print(f"reading memory: {bandwidth / 1e9:.1f} GB/s. Matrices of {N} x {K}, G weights/s at M tokens:\n")
    print(f"{'':22}" + "".join(f"{f'M={M}':>8}" for M in TOKENS) + f"{'GB/s':>9}{'of limit':>9}{'GFLOP/s':>9}")
    ours, rivals = {}, {}
    for name, contender in everyone.items():
        rates = [N * K / seconds[name, M] / 1e9 for M in TOKENS]
        speed = contender.bytes_each / seconds[name, 1]
        row = "".join(f"{rate:8.1f}" for rate in rates)
        print(f"{name:22}{row}{speed / 1e9:9.1f}{speed / bandwidth:9.0%}{2 * TOKENS[-1] * rates[-1]:9.0f}")
        (ours if contender.family else rivals)[name] = {
            f"M={M}": round(r, 2) for M, r in zip(TOKENS, rates, strict=True)
        }
    print()
    for name, (_, size) in attentions.items():
        speed = size / seconds[name, 1]
        print(f"{name:22}{seconds[name, 1] * 1e3:8.2f} ms{speed / 1e9:8.1f} GB/s{speed / bandwidth:9.0%}")
        (rivals if name.startswith("torch") else ours)[name] = {"ms": round(seconds[name, 1] * 1e3, 3)}
    torch_bf16, torch_attention = seconds["torch bf16", 1], seconds["torch attention bf16", 1]
    ratios = {
        f"torch bf16 / {name}, M=1": round(torch_bf16 / seconds[name, 1], 2) for name in ours if "att" not in name
    }
    ratios["torch attention / ours"] = round(torch_attention / seconds["attention bf16", 1], 2)
    result = {
        "question": "G weights/s of the products of decoding, and ms of its attention",
        "ours": ours,
        "rivals": rivals,
        "ratios": ratios,
        "limit": {"reading memory, GB/s": round(bandwidth / 1e9, 1)},
        "machine": {**describe_machine(), "kernels": status().instruction_set, "threads": torch.get_num_threads()},
        "load": [round(load, 2) for load in loads],
    }
    print(json.dumps(result))


def crossover(rounds: int) -> None:
    """Milliseconds of the kernel and of oneDNN at each number of tokens."""
    chosen, everyone = dict(linear.SMALL_M), {k: c for k, c in contenders().items() if c.family}
    sizes = (4, 8, 12, 16, 20, 24, 32, 48, 64, 96)
    found: dict[str, dict[str, list[float]]] = {}
    for name, contender in everyone.items():
        found[name] = {}
        for M in sizes:
            x, times = torch.randn(M, K).bfloat16(), ([], [])
            for _ in range(rounds):
                for path, limit in enumerate((10**6, 0)):
                    linear.SMALL_M.update(dict.fromkeys(chosen, limit))
                    times[path].append(contender.seconds(x) * 1e3)
            found[name][f"M={M}"] = [round(statistics.median(values), 3) for values in times]
        linear.SMALL_M.update(chosen)
        print(f"{name:22}" + "  ".join(f"{M} {a:.2f}/{b:.2f}" for M, (a, b) in found[name].items()))
    print(
        json.dumps({"question": "ms of a product by kernel and by oneDNN", "ours": found, "load": os.getloadavg()[0]})
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--crossover", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if library() is None:
        raise SystemExit(f"There are no compiled kernels: {status().reason}.")
    with torch.inference_mode():
        (crossover if arguments.crossover else measure)(arguments.rounds)


if __name__ == "__main__":
    main()
