"""The rivals of the inference benchmarks: environments for them, and one measurement of each.

Their pins fight ours and each other's, so llama.cpp lives in an environment of its own, `.benchmark-envs/llama-cpp`,
built from its source release for the processor at hand; transformers comes with the `dev` extra. This file is run by
either environment's Python for one measurement in a process of its own: at the top it imports the standard library
alone. Each rival is driven the way that is fastest for it: llama.cpp by its C interface, without the sampler and the
text that its Python class adds; transformers by `generate`, with the clock in its streamer.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ENVIRONMENTS = Path(__file__).parents[1] / ".benchmark-envs"
OVERRIDE = "PUNA_LLAMA_CPP_PYTHON"
CMAKE_ARGS = "-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release -DLLAVA_BUILD=OFF"
QUIET = 0.05  # of the processors, that others may use while a measurement counts as undisturbed
BATCH = 512  # tokens of a prompt that llama.cpp takes at once: its default, and the fastest of 256 to 2048 here


def llama_cpp() -> Path:
    """The Python of an environment with llama.cpp; built at the first call, which takes many minutes."""
    if chosen := os.environ.get(OVERRIDE):
        return Path(chosen)
    folder = ENVIRONMENTS / "llama-cpp"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        print(f"building llama.cpp in {folder} (once) ...", file=sys.stderr)
        settings = {**os.environ, "CMAKE_ARGS": CMAKE_ARGS, "FORCE_CMAKE": "1"}
        settings.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-binary", "llama-cpp-python"]
        subprocess.run([*install, "numpy", "llama-cpp-python"], check=True, env=settings, stdout=sys.stderr)
        subprocess.run([str(python), "-c", "import llama_cpp"], check=True)
        ready.touch()
    return python


def is_built() -> bool:
    return bool(os.environ.get(OVERRIDE)) or (ENVIRONMENTS / "llama-cpp" / ".ready").exists()


def quantize(source: Path, target: Path, kind: str, head: str = "") -> Path:
    """A GGUF file of another type, by llama.cpp's own quantiser.

    Args:
        source: a GGUF file in BF16.
        target: the file to write; one that exists is kept.
        kind: Q8_0 or Q4_0.
        head: the type of the output matrix; "" is what llama.cpp takes: Q8_0 in Q8_0 files, Q6_K in Q4_0 files.
    """
    if not target.exists():
        part = target.with_name(target.name + ".partial")
        arguments = [str(llama_cpp()), __file__, "quantize", str(source), str(part), kind, head]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        part.rename(target)
    return target


# Processes ------------------------------------------------------------------------------------------------------------


def run(command: list[str], plan: dict[str, Any] | None = None) -> dict[str, Any]:
    """Runs a measurement in a process of its own, which is told when it was started; gives what it prints last.

    A plan says how many `threads` it has, and with `patience` how many seconds to wait for a machine that nobody else
    uses; a measurement that others have disturbed is then made again, within that time. `others` in the result is the
    share of the machine's processors that others had meanwhile.
    """
    settings, patience = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}, 0.0
    settings.pop("PYTHONDONTWRITEBYTECODE", None)  # or whoever is not installed as a package compiles at every start
    if plan is not None:
        settings |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(plan["threads"]))
        patience = plan.get("patience", 0.0)
    ends = time.monotonic() + patience
    while True:
        if patience:
            wait_for_quiet(ends)
        extra = [] if plan is None else [json.dumps({**plan, "started": time.time()})]
        before = others_seconds()
        started = time.monotonic()
        done = subprocess.run([*command, *extra], stdout=subprocess.PIPE, text=True, env=settings, check=True)
        share = (others_seconds() - before) / (time.monotonic() - started) / (os.cpu_count() or 1)
        if share < QUIET or time.monotonic() > ends:
            return {**json.loads(done.stdout.splitlines()[-1]), "others": round(max(share, 0.0), 3)}


def wait_for_quiet(ends: float) -> None:
    """Returns when others have left the machine alone for some seconds, or at `ends`."""
    calm = 0
    while calm < 3 and time.monotonic() < ends:
        before = others_seconds()
        time.sleep(1)
        calm = calm + 1 if others_seconds() - before < QUIET * (os.cpu_count() or 1) else 0


def others_seconds() -> float:
    """Processor seconds that all but this process and its children have used since the machine started (Linux)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, interrupts, soft, stolen, *_ = map(int, stat.read_text().split(maxsplit=11)[1:11])
    busy = (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


def prompt(tokens: int, seed: int, ordinary: int) -> list[int]:
    """Token ids below `ordinary`, drawn by lot; another seed shares no prefix."""
    draw = random.Random(seed)
    return [draw.randrange(ordinary) for _ in range(tokens)]


def memory() -> dict[str, int]:
    """Bytes of this process: the peak of what is resident, and what of it now is no mapping of a file."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"peak": int(fields["VmHWM"].split()[0]) * 1024, "private": int(fields["RssAnon"].split()[0]) * 1024}


def resident_bytes() -> int:
    """Bytes of this process in memory now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(complete: Callable[[list[int], int], tuple[float, float]], plan: dict[str, Any]) -> dict[str, Any]:
    """The measurements that all contenders share, once a model is loaded.

    Args:
        complete: continues a prompt by so many tokens; gives the seconds to the first and from it to the last.
        plan: `started`, the time at which the process was started; `decode` and `prefill`, lists of prompt lengths;
            `tokens`, how many are decoded; `ordinary`, the number of ids to draw prompts from.
    """
    ordinary = plan["ordinary"]
    loaded = time.time() - plan["started"]
    complete(prompt(16, 0, ordinary), 1)
    first = time.time() - plan["started"]
    for length, count in ((128, 1), (16, 8)):  # warms what the first prompt has not
        complete(prompt(length, 1, ordinary), count)
    result: dict[str, Any] = {"load": loaded, "first token": first, "decode": {}, "prefill": {}}
    for length in sorted({*plan["decode"], *plan["prefill"]}):
        count = plan["tokens"] if length in plan["decode"] else 1
        filled, decoded = complete(prompt(length, 2 + length, ordinary), count)
        if length in plan["decode"]:
            result["decode"][length] = (count - 1) / decoded
        if length in plan["prefill"]:
            result["prefill"][length] = length / filled
    return result | {"memory": memory()}


# llama.cpp ------------------------------------------------------------------------------------------------------------


def measure_llama_cpp(model: str, plan: dict[str, Any]) -> dict[str, Any]:
    context_length = max([*plan["decode"], *plan["prefill"]]) + plan["tokens"]
    with llama_context(model, plan["threads"], context_length) as (context, vocabulary):
        return measure(lambda ids, count: complete_llama_cpp(context, vocabulary, ids, count), plan)


@contextmanager
def llama_context(path: str, threads: int, length: int) -> Iterator[tuple[Any, int]]:
    import ctypes

    import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch = length, BATCH, BATCH
    settings.n_threads = settings.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, settings)
    try:
        yield context, llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    finally:
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


def complete_llama_cpp(context: Any, vocabulary: int, ids: list[int], count: int) -> tuple[float, float]:
    """Greedy, with the argmax in numpy, which is faster than llama.cpp's samplers."""
    import llama_cpp
    import numpy as np

    def advance(tokens: list[int]) -> None:
        array = (llama_cpp.llama_token * len(tokens))(*tokens)  # a name keeps it alive: the batch only points to it
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(tokens))) != 0:
            raise RuntimeError("llama.cpp could not decode the batch")

    def choose() -> int:
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        return int(np.ctypeslib.as_array(logits, shape=(vocabulary,)).argmax())

    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    started = time.perf_counter()
    for start in range(0, len(ids), BATCH):
        advance(ids[start : start + BATCH])
    token = choose()
    first = time.perf_counter()
    for _ in range(count - 1):
        advance([token])
        token = choose()
    return first - started, time.perf_counter() - first


def quantize_llama_cpp(source: str, target: str, kind: str, head: str) -> None:
    import ctypes

    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = {"Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}[kind]
    if head:
        types = {"Q8_0": llama_cpp.GGML_TYPE_Q8_0, "Q6_K": llama_cpp.GGML_TYPE_Q6_K}
        settings.output_tensor_type = settings.token_embedding_type = types[head]
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings)) != 0:
        raise RuntimeError(f"llama.cpp could not quantise {source}")


# transformers ---------------------------------------------------------------------------------------------------------


class Clock:
    """A streamer of transformers that notes when tokens come; the first call brings the prompt."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        del value
        self.times.append(time.perf_counter())

    def end(self) -> None:
        return


def load_transformers(path: str, **settings: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, **settings).eval()


def measure_transformers(path: str, plan: dict[str, Any]) -> dict[str, Any]:
    import torch

    model = load_transformers(path)

    def complete(ids: list[int], count: int) -> tuple[float, float]:
        clock, ids_BT = Clock(), torch.tensor([ids])
        settings = {"max_new_tokens": count, "do_sample": False, "streamer": clock}
        started = time.perf_counter()
        with torch.inference_mode():
            model.generate(ids_BT, attention_mask=torch.ones_like(ids_BT), pad_token_id=0, **settings)
        if len(clock.times) != count + 1:
            raise RuntimeError(f"transformers gave {len(clock.times) - 1} tokens instead of {count}")
        return clock.times[1] - started, clock.times[-1] - clock.times[1]

    return measure(complete, plan)


def measure_transformers_batch(path: str, plan: dict[str, Any]) -> dict[str, Any]:
    """`generate_batch`: continuous batching over a paged cache with sdpa."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    model = load_transformers(path, attn_implementation="sdpa")
    prompts, page = plan["prompts"], 32
    blocks = sum(-(-(len(ids) + plan["tokens"]) // page) for ids in prompts) + len(prompts)

    def generate(some: list[list[int]], count: int) -> tuple[float, int]:
        settings = GenerationConfig(max_new_tokens=count, do_sample=False, eos_token_id=-1, pad_token_id=0)
        batching = ContinuousBatchingConfig(page_size=page, num_blocks=blocks, max_batch_tokens=512)
        started = time.perf_counter()
        found = model.generate_batch(some, generation_config=settings, continuous_batching_config=batching)
        seconds = time.perf_counter() - started
        return seconds, sum(len(answer.generated_tokens) for answer in found.values())

    generate([prompts[0][:64]], 4)
    seconds, made = generate(prompts, plan["tokens"])
    if made != len(prompts) * plan["tokens"]:
        raise RuntimeError(f"transformers gave {made} tokens instead of {len(prompts) * plan['tokens']}")
    return {"tokens/s": made / seconds, **{f"{k} MiB": round(v / 2**20) for k, v in memory().items()}}


# Logits ---------------------------------------------------------------------------------------------------------------


def save_logits(library: str, path: str, target: str, tokens: str, ordinary: str) -> None:
    """Writes the logits of the last token of a prompt."""
    import numpy as np

    ids = prompt(int(tokens), 0, int(ordinary))
    if library == "transformers":
        import torch

        with torch.inference_mode():
            np.save(target, load_transformers(path)(torch.tensor([ids])).logits[0, -1].float().numpy())
        return
    import llama_cpp

    with llama_context(path, os.cpu_count() or 1, len(ids)) as (context, vocabulary):
        complete_llama_cpp(context, vocabulary, ids, 1)
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        np.save(target, np.ctypeslib.as_array(logits, shape=(vocabulary,)))


MEASURED: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
    "llama-cpp": measure_llama_cpp,
    "transformers": measure_transformers,
    "transformers-batch": measure_transformers_batch,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("quantize", "logits", *MEASURED))
    parser.add_argument("arguments", nargs="+")
    given = parser.parse_args()
    if given.what == "quantize":
        quantize_llama_cpp(*given.arguments)
        return
    if given.what == "logits":
        save_logits(*given.arguments)
        print("{}")
        return
    path, plan = given.arguments
    print(json.dumps(MEASURED[given.what](path, json.loads(plan))))


if __name__ == "__main__":
    main()
