"""Runs an exported model in the program that it was made for, and compares: the proof that a file is right.

The program lives in a Python environment of its own, because its packages are no dependencies of ours; a child process
of that Python loads the file and hands back logits. Left out: TensorRT-LLM, which needs a GPU to load anything.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from puna.base.errors import CheckpointError, InputError, MissingExtraError

# Each child reads one JSON object from its standard input, writes logits as a numpy file and prints one JSON object.
_LLAMA_CPP = """
import ctypes, json, sys
import llama_cpp as lib
import numpy as np

work = json.load(sys.stdin)
said = []
keep = lib.llama_log_callback(lambda level, text, data: said.append((level, text)))
lib.llama_log_set(keep, ctypes.c_void_p(0))
lib.llama_backend_init()
model = lib.llama_model_load_from_file(work["path"].encode(), lib.llama_model_default_params())
if not model:
    errors = b"".join(text for level, text in said if level >= 4)
    sys.exit(errors.decode(errors="replace") or "the model did not load")
vocab = lib.llama_model_get_vocab(model)
size, ids = lib.llama_vocab_n_tokens(vocab), work["ids"]
settings = lib.llama_context_default_params()
settings.n_ctx = settings.n_batch = settings.n_ubatch = len(ids)
settings.type_k = settings.type_v = lib.GGML_TYPE_F32
settings.n_threads = settings.n_threads_batch = work["threads"]
settings.flash_attn_type = 0
context = lib.llama_init_from_model(model, settings)
batch = lib.llama_batch_init(len(ids), 0, 1)
batch.n_tokens = len(ids)
for place, token in enumerate(ids):
    batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, place, 1
    batch.seq_id[place][0], batch.logits[place] = 0, 1
if lib.llama_decode(context, batch) != 0:
    sys.exit("llama_decode failed")
rows = [np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), shape=(size,)).copy() for i in range(len(ids))]
np.save(work["out"], np.stack(rows))
encoded = []
for text in work["texts"]:
    raw = text.encode()
    buffer = (lib.llama_token * (len(raw) + 8))()
    count = lib.llama_tokenize(vocab, raw, len(raw), buffer, len(buffer), False, False)
    encoded.append(list(buffer[:count]))
ends = [id for id in range(size) if lib.llama_vocab_is_eog(vocab, id)] if work["texts"] else []
first = lib.llama_vocab_bos(vocab)
print(json.dumps({"program": f"llama.cpp ({lib.__version__})", "encoded": encoded, "ends": ends, "first": first}))
"""

_TRANSFORMERS = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

work = json.load(sys.stdin)
torch.set_num_threads(work["threads"])
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
model, info = AutoModelForCausalLM.from_pretrained(
    work["path"], dtype=getattr(torch, work["dtype"]), output_loading_info=True
)
if lost := [name for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in info[key]]:
    sys.exit(f"weights that did not find their places: {sorted(map(str, lost))[:5]}")
with torch.inference_mode():
    logits = model.eval()(torch.tensor([work["ids"]])).logits[0].float()
np.save(work["out"], logits.numpy())
encoded = []
if work["texts"]:
    tokenizer = AutoTokenizer.from_pretrained(work["path"])
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in work["texts"]]
kinds = sorted({type(module).__name__ for module in model.modules()})
print(json.dumps({"program": f"transformers {transformers.__version__}", "encoded": encoded, "modules": kinds}))
"""
_PROGRAMS = {"llama_cpp": _LLAMA_CPP, "transformers": _TRANSFORMERS}


@dataclass(frozen=True, slots=True)
class Answer:
    """What another program made of a file.

    Attributes:
        program: its name and version.
        logits_TV: float32, of every token.
        encoded: the ids of the texts.
        details: what else it told.
    """

    program: str
    logits_TV: Tensor
    encoded: list[list[int]]
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two programs' logits of one text are apart.

    Attributes:
        relative_error: root of the mean square difference, over the standard deviation of the expected logits.
        same_best: share of the tokens after which both find the same token likeliest.
    """

    relative_error: float
    same_best: float

    def __str__(self) -> str:
        return f"logits differ by {self.relative_error:.2%}, the likeliest token is the same for {self.same_best:.1%}"


def run(
    program: str,
    python: Path | str,
    path: Path | str,
    ids: Sequence[int],
    texts: Sequence[str] = (),
    *,
    dtype: str = "float32",
    threads: int = 1,
) -> Answer:
    """Gives the logits of `ids` and the ids of `texts` under another program.

    Args:
        program: "llama_cpp" or "transformers".
        python: the interpreter of an environment that has it.
        path: a GGUF file, or a Hugging Face folder.
        ids: one sequence.
        texts: to be encoded without special tokens.
        dtype: of transformers' computation; llama.cpp chooses its own.
        threads: how many it may use.

    Raises:
        InputError: no such interpreter.
        MissingExtraError: its environment does not have the program.
        CheckpointError: the program does not load the file, in its own words.
    """
    with tempfile.TemporaryDirectory(prefix="puna-") as folder:
        out = Path(folder) / "logits.npy"
        work = {"path": str(path), "ids": list(ids), "texts": list(texts), "dtype": dtype, "threads": threads}
        reply = _ask(program, python, {**work, "out": str(out)})
        logits_TV = torch.from_numpy(np.load(out))
    return Answer(reply.pop("program"), logits_TV, reply.pop("encoded"), reply)


def _ask(program: str, python: Path | str, work: dict[str, Any]) -> dict[str, Any]:
    try:
        child = subprocess.run(
            [str(python), "-c", _PROGRAMS[program]],
            input=json.dumps(work),
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise InputError(f"{python} cannot be run: {error.strerror}.", hint="Give the path of a Python.") from error
    if child.returncode == 0:
        return json.loads(child.stdout.splitlines()[-1])
    last = (child.stderr.strip().splitlines() or [f"it ended with code {child.returncode}"])[-1]
    if "ModuleNotFoundError" in last or "ImportError" in last:
        raise MissingExtraError(f"{python} cannot run {program}: {last}", hint="Install it in that environment.")
    raise CheckpointError(f"{program} does not run {work['path']}: {last}")


def compare(found_TV: Tensor, expected_TV: Tensor) -> Agreement:
    """How far logits are from those that were expected."""
    if found_TV.shape != expected_TV.shape:
        raise CheckpointError(f"The program gives logits {tuple(found_TV.shape)}, not {tuple(expected_TV.shape)}.")
    found_TV, expected_TV = found_TV.double(), expected_TV.double()
    # A constant added to all logits of a token changes no probability.
    difference = found_TV - expected_TV
    difference = difference - difference.mean(-1, keepdim=True)
    error = float(difference.square().mean().sqrt() / expected_TV.std())
    same = (found_TV.argmax(-1) == expected_TV.argmax(-1)).double().mean()
    return Agreement(error, float(same))
