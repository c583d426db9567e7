"""One sequence on the CPU: decoding, prompts, start and memory, beside llama.cpp and transformers in one run.

Every contender has the same random weights in its own format, and each measurement is a process of its own with all
cores and a warm page cache; they take turns. What is read for a token is counted in the files, and speeds are shown as
shares of what the same machine allows, measured in the same turns: bandwidth for decoding, the peak of a bf16 product
for prompts. llama.cpp keeps the output matrix of a Q4_0 file in Q6_K; ours is INT8, and `Q4_0 h8` has llama.cpp's Q8_0
there, so that both comparisons stand in the table. `--check` compares the logits of all contenders instead.

    python benchmarks/decode.py                       the 1B shape, five rounds
    python benchmarks/decode.py --long                with decoding after 4,096 tokens too
    python benchmarks/decode.py --size llama-3.1-8b --only "puna fp8" "puna int4" --rounds 1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import rivals

# name -> library, our quantisation recipe or GGUF type, format of the output matrix
CONTENDERS = {
    "puna bf16": ("puna", "bf16", ""),
    "puna int8": ("puna", "int8", "int8"),
    "puna fp8": ("puna", "fp8", "fp8"),
    "puna int4": ("puna", "int4-g32", "int8"),
    "llama.cpp BF16": ("llama-cpp", "BF16", ""),
    "llama.cpp Q8_0": ("llama-cpp", "Q8_0", ""),
    "llama.cpp Q4_0": ("llama-cpp", "Q4_0", ""),
    "llama.cpp Q4_0 h8": ("llama-cpp", "Q4_0", "Q8_0"),
    "transformers bf16": ("transformers", "bf16", ""),
}
# ratio -> the least that issue 3 asks for
DECODE_GOALS = {
    ("puna int8", "llama.cpp Q8_0"): 1.3,
    ("puna int4", "llama.cpp Q4_0"): 1.1,
    ("puna int4", "llama.cpp Q4_0 h8"): 1.1,
    ("puna fp8", "puna int8"): 0.8,
    ("puna bf16", "transformers bf16"): 3.0,
    ("puna bf16", "llama.cpp BF16"): 1.0,
}
PREFILL_GOALS = {
    ("puna int8", "llama.cpp Q8_0"): 1.0,
    ("puna int4", "llama.cpp Q4_0"): 1.0,
    ("puna bf16", "llama.cpp BF16"): 1.0,
    ("puna bf16", "transformers bf16"): 1.0,
    ("puna int8", "transformers bf16"): 1.0,
    ("puna fp8", "transformers bf16"): 1.0,
    ("puna int4", "transformers bf16"): 1.0,
}
CHECKED_TOKENS = 64


@dataclass(frozen=True)
class Model:
    """A contender's weights: where they lie, and how many bytes of them a token reads."""

    library: str
    path: Path
    bytes: int


def main() -> None:
    arguments = parse()
    if arguments.one:
        print(json.dumps(ONE[arguments.one[0]](*arguments.one[1:])))
        return
    cache = checkpoints.cache_folder(arguments.cache)
    models = {name: prepare(name, arguments.size, cache) for name in arguments.only or CONTENDERS}
    if arguments.check:
        check(models, arguments.size, cache)
        return
    plan = {
        "decode": [128, 4096] if arguments.long else [128],
        "prefill": arguments.prefill,
        "tokens": arguments.tokens,
        "ordinary": checkpoints.ordinary(arguments.size),
        "threads": arguments.threads,
        "patience": arguments.patience,
    }
    load = [os.getloadavg()[0]]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in [*models, "limits"]}
    for number in range(arguments.rounds):
        results["limits"].append(child("limits", [arguments.size], plan))
        for name, model in models.items():
            results[name].append(measure(model, plan))
            show(number, name, results[name][-1])
    report(arguments.size, models, results, [*load, os.getloadavg()[0]])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="llama-3.2-1b")
    parser.add_argument("--cache", type=Path, help="folder for checkpoints (default: the user's cache)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=65, help="tokens of an answer")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every contender")
    parser.add_argument("--prefill", type=int, nargs="*", default=[512, 4096], help="lengths of prompts")
    parser.add_argument("--patience", type=float, default=0, help="seconds to wait for a quiet machine, each time")
    parser.add_argument("--long", action="store_true", help="also decode after a prompt of 4,096 tokens")
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, metavar="NAME", help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--check", action="store_true", help="compare logits, and measure nothing")
    parser.add_argument("--one", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


# Weights --------------------------------------------------------------------------------------------------------------


def prepare(name: str, size: str, cache: Path) -> Model:
    library, kind, head = CONTENDERS[name]
    source = checkpoints.random(size, cache)
    if library == "llama-cpp":
        path = checkpoints.gguf(source, cache)
        if kind != "BF16":
            target = cache / f"{source.name}-{kind.lower()}{'-h8' if head else ''}.gguf"
            path = rivals.quantize(path, target, kind, head)
        return Model(library, path, checkpoints.gguf_bytes(path))
    path = source if kind == "bf16" else checkpoints.quantized(source, kind, head)
    return Model(library, path, checkpoints.stored_bytes(path))


def warm(path: Path) -> None:
    """Brings a model's files into the page cache, anew: where in memory they come to lie decides how fast they are read
    (on a machine with several memory controllers by half), and every round draws that again."""
    for file in [path] if path.is_file() else sorted(path.glob("*.safetensors")):
        with file.open("rb", buffering=0) as opened:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while opened.read(1 << 24):
                pass


# One measurement ------------------------------------------------------------------------------------------------------


def measure(model: Model, plan: dict[str, Any]) -> dict[str, Any]:
    warm(model.path)
    if model.library == "puna":
        return child("puna", [str(model.path)], plan)
    python = rivals.llama_cpp() if model.library == "llama-cpp" else Path(sys.executable)
    return rivals.run([str(python), rivals.__file__, model.library, str(model.path)], plan)


def child(what: str, values: list[str], plan: dict[str, Any] | None = None) -> dict[str, Any]:
    return rivals.run([sys.executable, __file__, "--one", what, *values], plan)


def measure_puna(path: str, plan: str) -> dict[str, Any]:
    import puna
    from puna.core.completion import SamplingParams

    model = puna.load(path, dtype="bfloat16")

    def complete(ids: list[int], count: int) -> tuple[float, float]:
        started = time.perf_counter()
        usage = model.generate(ids, SamplingParams(temperature=0, max_tokens=count)).usage
        seconds = time.perf_counter() - started
        if usage.completion_tokens != count:
            raise RuntimeError(f"{usage.completion_tokens} tokens came instead of {count}")
        return seconds - usage.decode_seconds, usage.decode_seconds

    return rivals.measure(complete, json.loads(plan))


def measure_limits(size: str, plan: str) -> dict[str, Any]:
    from puna.engine import limits
    from puna.model.budget import cache_bytes_per_token
    from puna.model.config import named_size

    machine, config = limits.measure(), named_size(size)
    lengths = json.loads(plan)["prefill"]
    return {
        "bandwidth": machine.read_bytes_per_second,
        "flops": machine.matmul_flops,
        "threads": machine.threads,
        "prefill": {tokens: limits.prefill_flops_per_token(config, tokens) for tokens in lengths},
        "cache": cache_bytes_per_token(config),
    }


def logits_of_puna(path: str, target: str, tokens: str, ordinary: str) -> dict[str, Any]:
    import numpy as np

    import puna

    model = puna.load(path, dtype="bfloat16")
    np.save(target, model.logits([rivals.prompt(int(tokens), 0, int(ordinary))])[0, -1].float().numpy())
    return {}


ONE: dict[str, Callable[..., dict[str, Any]]] = {
    "puna": measure_puna,
    "limits": measure_limits,
    "logits": logits_of_puna,
}


# Results --------------------------------------------------------------------------------------------------------------


def check(models: dict[str, Model], size: str, cache: Path) -> None:
    """How like the logits of the last of some tokens are to transformers', and whether the best token is the same."""
    import numpy as np

    found = {}
    for name, model in {"transformers bf16": models.get("transformers bf16"), **models}.items():
        if model is None:
            raise SystemExit("--check compares with transformers bf16: name it among --only.")
        target = cache / "logits.npy"
        asked = [str(model.path), str(target), str(CHECKED_TOKENS), str(checkpoints.ordinary(size))]
        if model.library == "puna":
            child("logits", asked)
        else:
            python = rivals.llama_cpp() if model.library == "llama-cpp" else Path(sys.executable)
            rivals.run([str(python), rivals.__file__, "logits", model.library, *asked])
        found[name] = np.load(target)
        target.unlink()
    reference = found["transformers bf16"]
    print(f"{'':22}{'correlation':>12}{'largest difference':>20}{'same best':>11}")
    agreement = {}
    for name, logits in found.items():
        agreement[name] = float(np.corrcoef(logits, reference)[0, 1])
        same, difference = logits.argmax() == reference.argmax(), np.abs(logits - reference).max()
        print(f"{name:22}{agreement[name]:12.5f}{difference:20.4f}{'yes' if same else 'no':>11}")
    question = f"correlation of logits with transformers bf16 after {CHECKED_TOKENS} tokens"
    print(json.dumps({"question": question, "ours": {n: round(v, 5) for n, v in agreement.items()}}))


def show(number: int, name: str, result: dict[str, Any]) -> None:
    speeds = [
        f"{kind} {length}: {value:,.1f}" for kind in ("decode", "prefill") for length, value in result[kind].items()
    ]
    others = f"{result['others']:.0%} of the machine used by others"
    print(f"round {number + 1}, {name}: {', '.join(speeds)} tokens/s; {others}", file=sys.stderr, flush=True)


def median(results: list[dict[str, Any]], *keys: str) -> float:
    values = []
    for result in results:
        value: Any = result
        for key in keys:
            value = value[key]
        values.append(value)
    return statistics.median(values)


def report(size: str, models: dict[str, Model], results: dict[str, list[dict[str, Any]]], load: list[float]) -> None:
    limits = results["limits"]
    bandwidth, flops = median(limits, "bandwidth"), median(limits, "flops", "bfloat16")
    first = next(iter(models))
    columns = [(kind, length) for kind in ("decode", "prefill") for length in results[first][0][kind]]
    print(f"\n{size}: tokens/s and share of the limit; {bandwidth / 1e9:.1f} GB/s, {flops / 1e9:.0f} GFLOP/s in bf16\n")
    heads = "".join(f"{f'{kind} {length}':>16}" for kind, length in columns)
    print(f"{'':20}{heads}{'GB/token':>10}{'load s':>8}{'first s':>9}{'peak MiB':>10}{'private':>9}")
    table: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        row: dict[str, Any] = {}
        cells = ""
        for kind, length in columns:
            speed = median(results[name], kind, length)
            bound = bandwidth / (model.bytes + limits[0]["cache"] * int(length))
            if kind == "prefill":
                bound = flops / limits[0]["prefill"][length]
            row[f"{kind} {length}"] = round(speed, 2)
            row[f"{kind} {length} share"] = round(speed / bound, 3)
            cells += f"{speed:10,.1f} {speed / bound:4.0%} "
        for key in ("load", "first token"):
            row[key] = round(median(results[name], key), 2)
        for key in ("peak", "private"):
            row[f"{key} MiB"] = round(median(results[name], "memory", key) / 2**20)
        table[name] = row | {"bytes": model.bytes}
        print(
            f"{name:20}{cells}{model.bytes / 1e9:10.2f}{row['load']:8.2f}{row['first token']:9.2f}"
            f"{row['peak MiB']:10,}{row['private MiB']:9,}"
        )
    ratios = compare(table, columns)
    machine = describe(load, results["limits"][0]["threads"])
    others = statistics.median(result["others"] for rows in results.values() for result in rows)
    limit = {"bandwidth": round(bandwidth), "bf16 FLOP/s": round(flops)}
    rest = {"limit": limit, "used by others": round(others, 3), **machine}
    ours = {name: row for name, row in table.items() if name.startswith("puna")}
    theirs = {name: row for name, row in table.items() if name not in ours}
    question = f"tokens/s of one sequence, {size}, random weights"
    print(json.dumps({"question": question, "ours": ours, "rivals": theirs, "ratios": ratios, **rest}))


def compare(table: dict[str, dict[str, Any]], columns: list[tuple[str, str]]) -> dict[str, float]:
    print(f"\n{'ratio':56}{'':8}{'goal':>6}")
    ratios = {}
    for kind, length in columns:
        for (ours, theirs), goal in (DECODE_GOALS if kind == "decode" else PREFILL_GOALS).items():
            if ours in table and theirs in table:
                name = f"{kind} {length}: {ours} / {theirs}"
                key = f"{kind} {length}"
                ratios[name] = round(table[ours][key] / table[theirs][key], 3)
                print(f"{name:56}{ratios[name]:8.2f}{goal:6.1f}{'' if ratios[name] >= goal else '  missed'}")
    return ratios


def describe(load: list[float], threads: int) -> dict[str, Any]:
    import transformers

    from puna.base.device import describe_machine

    versions = {"transformers": transformers.__version__}
    if rivals.is_built():
        code = "import llama_cpp; print(llama_cpp.__version__)"
        done = subprocess.run([str(rivals.llama_cpp()), "-c", code], capture_output=True, text=True, check=True)
        versions["llama-cpp-python"] = done.stdout.strip()
    return {"machine": describe_machine() | versions, "threads": threads, "load": [round(value, 2) for value in load]}


if __name__ == "__main__":
    main()
