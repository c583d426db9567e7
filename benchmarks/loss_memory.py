"""Memory and time of the loss over Llama 3's 128,256 tokens, forward and backward, beside the plain loss.

Each measurement is a process of its own: the peak is the kernel's count of resident memory, above what the process
held before the loss.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

VOCABULARY = 128_256
CONTENDERS = ("puna", "plain", "torch linear_cross_entropy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.tokens, arguments.width)))
        return
    peaks: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(arguments.rounds):
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--one", name, "--tokens", str(arguments.tokens)]
            done = subprocess.run([*command, "--width", str(arguments.width)], capture_output=True, text=True)
            if done.returncode == 0:
                peak, seconds = json.loads(done.stdout)
                peaks[name].append(peak)
                times[name].append(seconds)
    print(f"{arguments.tokens} tokens, width {arguments.width}, {VOCABULARY} ids, float32\n")
    print(f"{'':28}{'peak MiB':>10}{'seconds':>10}")
    for name in CONTENDERS:
        if peaks[name]:
            print(f"{name:28}{statistics.median(peaks[name]):10,.0f}{statistics.median(times[name]):10.2f}")
    ours, plain = statistics.median(peaks["puna"]), statistics.median(peaks["plain"])
    result = {
        "question": "peak memory of the 128K-vocabulary loss, MiB",
        "ours": round(ours, 1),
        "rivals": {name: round(statistics.median(peaks[name]), 1) for name in CONTENDERS[1:] if peaks[name]},
        "ratios": {"plain / ours": round(plain / ours, 2)},
        "limit": {"gradient of the output matrix, MiB": round(VOCABULARY * arguments.width * 4 / 2**20, 1)},
    }
    print(json.dumps(result))


def measure(name: str, tokens: int, width: int) -> tuple[float, float]:
    """Peak MiB above the start, and seconds."""
    import torch
    import torch.nn.functional as F

    from puna.model.heads import cross_entropy

    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, tokens, width, generator=generator, requires_grad=True)
    # In place: memory that a temporary gave back would be missing from the peak.
    weight = torch.empty(VOCABULARY, width).normal_(0, 0.02, generator=generator).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (1, tokens), generator=generator)
    mask = torch.ones_like(targets, dtype=torch.bool)
    losses = {
        "puna": lambda: cross_entropy(hidden, weight, targets, mask) / tokens,
        "plain": lambda: F.cross_entropy(F.linear(hidden, weight).view(tokens, -1), targets.view(-1)),
        "torch linear_cross_entropy": lambda: F.linear_cross_entropy(hidden.view(tokens, -1), weight, targets.view(-1)),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    losses[name]().backward()
    seconds = time.perf_counter() - started
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, seconds


if __name__ == "__main__":
    main()
