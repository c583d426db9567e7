"""Many requests at once on the CPU: throughput, second turns, a long prompt among answers, speculation, memory.

Random weights of the 1B shape drive the engine itself, each measurement in a process of its own; rivals take turns.

- together: 16 requests that share the first 256 tokens and go on with 16 to 256 of their own, 128 new tokens each;
  beside the same requests one after another (prefix cache on, so that this is our best single stream), and beside
  transformers' continuous batching (`generate_batch`, sdpa), whose blocks and batch are set to what the work needs:
  left to itself it reserves the machine's memory and reads it at every step.
- turns: the second turn of a conversation of 2,048 tokens, beside a prompt of the same length that is new.
- stall: how long four answers wait for their tokens while a prompt of 4,096 tokens is read, beside one chunk of it.
- edit: a model that knows a text by heart is shown it with one token in 24 changed, and writes it out right. Each
  answer follows its prompt for 23 tokens at most, as an edit does; the weights are read as those of any 1B model.
- many: resident memory over 10,000 short requests to a small model.

    python benchmarks/serving.py
    python benchmarks/serving.py --only turns stall --format int8
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import rivals

CASES = ("together", "turns", "stall", "edit", "many")
FORMATS = {"bf16": ("", ""), "int8": ("int8", "int8"), "fp8": ("fp8", "fp8"), "int4": ("int4-g32", "int8")}
REQUESTS, SHARED, ANSWER = 16, 256, 128
TURN, EDIT_EVERY, EDIT_TOKENS = 2048, 24, 480
LONG_PROMPT, LISTENERS = 4096, 4
GOALS = {
    "together / one by one": 4.0,
    "together / generate_batch": 2.0,
    "second turn / new prompt": 0.1,
    "chunks between two tokens": 1.0,
    "edit: n-gram / plain": 2.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="llama-3.2-1b")
    parser.add_argument("--small", default="cria-3m", help="the size of the model of `many`")
    parser.add_argument("--format", default="bf16", choices=FORMATS, help="of our weights; transformers has bf16")
    parser.add_argument("--cache", type=Path, help="folder for checkpoints (default: the user's cache)")
    parser.add_argument(
        "--only", nargs="*", choices=CASES, default=CASES, metavar="CASE", help=f"of {', '.join(CASES)}"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=10_000, help="of `many`")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--patience", type=float, default=0, help="seconds to wait for a quiet machine, each time")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, plan = arguments.one[0], json.loads(arguments.one[1])
        print(json.dumps(MEASURED[name](plan)))
        return
    load = os.getloadavg()[0]
    results = {case: measure(case, arguments) for case in arguments.only}
    report(arguments, results, load)


def measure(case: str, arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The results of a case's measurements, in turns."""
    cache = checkpoints.cache_folder(arguments.cache)
    plain = checkpoints.random(arguments.size, cache)
    recipe, head = FORMATS[arguments.format]
    source = checkpoints.by_heart(arguments.size, cache) if case == "edit" else plain
    path = checkpoints.quantized(source, recipe, head) if recipe else source
    plan = {"threads": arguments.threads, "patience": arguments.patience, "path": str(path)}
    steps: dict[str, Callable[[], dict[str, Any]]] = {}
    if case == "together":
        theirs = {**plan, "prompts": prompts(checkpoints.ordinary(arguments.size)), "tokens": ANSWER}
        steps["one by one"] = lambda: child("one by one", plan)
        steps["together"] = lambda: child("together", plan)
        steps["generate_batch"] = lambda: rivals.run(
            [sys.executable, rivals.__file__, "transformers-batch", str(plain)], theirs
        )
    elif case == "many":
        small = {**plan, "path": str(checkpoints.random(arguments.small, cache)), "requests": arguments.requests}
        steps["many"] = lambda: child("many", small)
    else:
        steps[case] = lambda: child(case, plan)
    rounds = 1 if case == "many" else arguments.rounds
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in steps}
    for number in range(rounds):
        for name, step in steps.items():
            results[name].append(step())
            shown = {key: value for key, value in results[name][-1].items() if isinstance(value, (int, float))}
            print(f"round {number + 1}, {name}: {json.dumps(shown)}", file=sys.stderr, flush=True)
    return results


def child(name: str, plan: dict[str, Any]) -> dict[str, Any]:
    return rivals.run([sys.executable, __file__, "--one", name], plan)


# Measurements, each in a process of its own ---------------------------------------------------------------------------


class Bench:
    """A loaded model, its engine, and a clock on every token.

    Args:
        plan: `path` of the checkpoint.
        settings: of `EngineConfig`.
    """

    def __init__(self, plan: dict[str, Any], **settings: Any) -> None:
        from puna.engine.config import EngineConfig
        from puna.recipes.run_folder import load_model

        config = EngineConfig(**{"max_context": 8192, "cache_bytes": 1 << 30, **settings})
        self.engine = load_model(plan["path"], "bfloat16", config=config).engine
        self.ordinary = self.engine.vocab_size - 256
        self.add(self.prompt(64, seed=99), 4)  # what is made at the first use
        self.run()

    def prompt(self, tokens: int, seed: int) -> list[int]:
        return rivals.prompt(tokens, seed, self.ordinary)

    def add(self, ids: list[int], count: int) -> tuple[Any, list[float]]:
        """A sequence, and the times of its tokens as they come."""
        from puna.core.completion import SamplingParams
        from puna.engine.sequence import Request

        times: list[float] = []
        request = Request(tuple(ids), SamplingParams(temperature=0, max_tokens=count))
        return self.engine.add(request, lambda token: times.append(time.perf_counter())), times

    def run(self) -> None:
        while self.engine.busy:
            self.engine.step()

    def first(self, ids: list[int], count: int = 1) -> tuple[float, list[int]]:
        """Seconds to the first token of an answer, and the answer."""
        started = time.perf_counter()
        sequence, times = self.add(ids, count)
        self.run()
        return times[0] - started, sequence.ids


def prompts(ordinary: int) -> list[list[int]]:
    shared = rivals.prompt(SHARED, 7, ordinary)
    return [shared + rivals.prompt(16 + 16 * i, 100 + i, ordinary) for i in range(REQUESTS)]


def measure_together(plan: dict[str, Any]) -> dict[str, Any]:
    bench = Bench(plan)
    started = time.perf_counter()
    asked = [bench.add(ids, ANSWER) for ids in prompts(bench.ordinary)]
    bench.run()
    seconds = time.perf_counter() - started
    firsts = [times[0] - started for _, times in asked]
    made = sum(len(sequence.ids) for sequence, _ in asked)
    # All prompts have been read when the last first token comes; the rest is decoding alone.
    decoded = sum(sum(moment - started > max(firsts) for moment in times) for _, times in asked)
    rate = decoded / (seconds - max(firsts))
    return {"tokens/s": made / seconds, "decode tokens/s": rate, "first": statistics.median(firsts), **memory()}


def measure_one_by_one(plan: dict[str, Any]) -> dict[str, Any]:
    bench = Bench(plan)
    made, decoding, started = 0, 0.0, time.perf_counter()
    for ids in prompts(bench.ordinary):
        sequence, times = bench.add(ids, ANSWER)
        bench.run()
        made += len(sequence.ids)
        decoding += times[-1] - times[0]
    seconds = time.perf_counter() - started
    return {"tokens/s": made / seconds, "decode tokens/s": (made - REQUESTS) / decoding, **memory()}


def measure_turns(plan: dict[str, Any]) -> dict[str, Any]:
    bench = Bench(plan)
    ids = bench.prompt(TURN, seed=1)
    cold, answer = bench.first(ids, 16)
    second = [*ids, *answer, *bench.prompt(24, seed=2)]
    warm, _ = bench.first(second)
    new, _ = bench.first(bench.prompt(len(second), seed=3))
    return {"first turn": cold, "second turn": warm, "new prompt": new, "ratio": warm / new}


def measure_stall(plan: dict[str, Any]) -> dict[str, Any]:
    bench = Bench(plan)
    chunk = bench.engine.config.mixed_step_tokens
    alone, _ = bench.first(bench.prompt(chunk, seed=5))
    answers = [bench.add(bench.prompt(64, seed=10 + i), 2000) for i in range(LISTENERS)]
    while min(len(times) for _, times in answers) < 40:
        bench.engine.step()
    calm = [gap for _, times in answers for gap in gaps(times[8:])]
    starts = [len(times) - 1 for _, times in answers]
    long, came = bench.add(bench.prompt(LONG_PROMPT, seed=6), 1)
    most = 0
    while not came:
        before, counts = long.computed, [len(times) for _, times in answers]
        bench.engine.step()
        if any(len(times) == count for (_, times), count in zip(answers, counts, strict=True)):
            raise RuntimeError("an answer got no token in a step that read a part of the prompt")
        most = max(most, (LONG_PROMPT if long.ended else long.computed) - before)
    busy = [gap for (_, times), start in zip(answers, starts, strict=True) for gap in gaps(times[start:])]
    for sequence, _ in answers:
        bench.engine.cancel(sequence)
    result = {"chunk tokens": chunk, "chunk seconds": alone, "most tokens between": most}
    return {**spread("calm", calm), **spread("busy", busy), **result}


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def spread(name: str, values: list[float]) -> dict[str, float]:
    ordered, last = sorted(values), len(values) - 1
    return {f"{name} {part}": ordered[round(share * last)] for part, share in (("p50", 0.5), ("p99", 0.99), ("max", 1))}


def measure_edit(plan: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    outputs = []
    for name in ("none", "ngram"):
        bench = Bench(plan, draft=name)
        text = [0]
        for _ in range(EDIT_TOKENS + 8):
            text.append(checkpoints.successor(text[-1], bench.ordinary))
        changed = bench.prompt(len(text), seed=4)
        shown = [changed[i] if i % EDIT_EVERY == EDIT_EVERY - 1 else token for i, token in enumerate(text)]
        sequence, times = bench.add(shown + text[:4], EDIT_TOKENS)
        steps = 0
        while bench.engine.busy:
            bench.engine.step()
            steps += bool(times)
        result[name] = (len(times) - 1) / (times[-1] - times[0])
        result[f"{name} tokens a step"] = len(times) / steps
        outputs.append(sequence.ids)
        if sequence.ids != text[4 : 4 + EDIT_TOKENS]:
            raise RuntimeError("the model does not know its text by heart")
    if outputs[0] != outputs[1]:
        raise RuntimeError("speculation has changed the answer")
    return result | {"ratio": result["ngram"] / result["none"], **memory()}


def measure_many(plan: dict[str, Any]) -> dict[str, Any]:
    """Resident memory, once the first tenth of the requests has filled what is kept."""
    import random

    bench = Bench(plan, max_context=1024, cache_bytes=32 << 20)
    draw, resident, asked, done = random.Random(0), [], 0, 0
    started = time.perf_counter()
    total = plan["requests"]
    while done < total:
        while asked < min(total, done + 32):
            bench.add(bench.prompt(draw.randrange(8, 64), seed=asked), draw.randrange(2, 9))
            asked += 1
        done += sum(sequence.ended for sequence in bench.engine.step())
        if done * 10 // total > len(resident):
            resident.append(rivals.resident_bytes())
    seconds = time.perf_counter() - started
    rows = [round(value / 2**20, 1) for value in resident]
    return {"requests/s": total / seconds, "growth MiB": rows[-1] - rows[0], "resident MiB": rows}


def memory() -> dict[str, float]:
    return {f"{name} MiB": round(value / 2**20) for name, value in rivals.memory().items()}


MEASURED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "together": measure_together,
    "one by one": measure_one_by_one,
    "turns": measure_turns,
    "stall": measure_stall,
    "edit": measure_edit,
    "many": measure_many,
}


# Results --------------------------------------------------------------------------------------------------------------


def report(arguments: argparse.Namespace, results: dict[str, dict[str, list[dict[str, Any]]]], load: float) -> None:
    """A table of medians, and one line of JSON."""
    from puna.base.device import describe_machine

    medians: dict[str, dict[str, Any]] = {}
    for measured in results.values():
        for name, rows in measured.items():
            numbers = [key for key, value in rows[0].items() if isinstance(value, (int, float))]
            medians[name] = {key: round(statistics.median(row[key] for row in rows), 4) for key in numbers}
    print(f"\n{arguments.size}, {arguments.format}, {arguments.threads} threads; medians of {arguments.rounds}\n")
    for name, row in medians.items():
        print(f"{name:16}" + ", ".join(f"{key} {value:,.4g}" for key, value in row.items()))
    ratios = compare(medians)
    print()
    for name, value in ratios.items():
        goal = GOALS.get(name)
        fails = goal is not None and (value > goal if goal <= 1 else value < goal)
        print(f"{name:32}{value:8.3f}{'' if goal is None else f'   goal {goal:g}'}{'  missed' if fails else ''}")
    print(
        json.dumps(
            {
                "question": f"serving many requests, {arguments.size}, {arguments.format}, random weights",
                "ours": {name: row for name, row in medians.items() if name != "generate_batch"},
                "rivals": {name: row for name, row in medians.items() if name == "generate_batch"},
                "ratios": ratios,
                "limit": {name: GOALS[name] for name in ratios if name in GOALS},
                "machine": describe_machine(),
                "threads": arguments.threads,
                "load": [round(load, 2), round(os.getloadavg()[0], 2)],
            }
        )
    )


def compare(medians: dict[str, dict[str, Any]]) -> dict[str, float]:
    ratios: dict[str, float] = {}
    if "together" in medians:
        ours = medians["together"]["tokens/s"]
        ratios["together / one by one"] = ours / medians["one by one"]["tokens/s"]
        ratios["together / one by one, decoding"] = (
            medians["together"]["decode tokens/s"] / medians["one by one"]["decode tokens/s"]
        )
        ratios["together / generate_batch"] = ours / medians["generate_batch"]["tokens/s"]
    if "turns" in medians:
        ratios["second turn / new prompt"] = medians["turns"]["ratio"]
    if "stall" in medians:
        stall = medians["stall"]
        ratios["chunks between two tokens"] = stall["most tokens between"] / stall["chunk tokens"]
        ratios["longest wait / a chunk alone"] = stall["busy max"] / stall["chunk seconds"]
    if "edit" in medians:
        ratios["edit: n-gram / plain"] = medians["edit"]["ratio"]
    if "many" in medians:
        ratios["growth of memory, MiB"] = medians["many"]["growth MiB"]
    return {name: round(value, 3) for name, value in ratios.items()}


if __name__ == "__main__":
    main()
