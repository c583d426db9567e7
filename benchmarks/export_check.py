"""Do the programs that we export to compute what we compute?

GGUF files of every type and shape run in llama.cpp, whose logits are compared with ours for the very weights in the
file; our rounding is compared with that of llama.cpp, number by number; files in types that we only read are made by
that quantiser. Texts are encoded by both. Compressed-tensors folders of every format run in transformers. The programs
live in environments that this script makes (llama.cpp is built once, which takes many minutes): PUNA_LLAMA_CPP_PYTHON
and PUNA_TRANSFORMERS_PYTHON name others.

Logits differ by what the programs round besides the weights: llama.cpp rounds the inputs of a product to the type that
goes with its weights (float16, bfloat16, or blocks of 8 bits); transformers divides by 127.5 where we divide by 127 to
round inputs to int8.
"""

from __future__ import annotations

import argparse
import json
import os
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rivals
import torch

from puna.export import compressed_tensors, gguf
from puna.export.gguf_file import GgufFile
from puna.export.verify import Agreement, compare, run
from puna.model.checkpoint import Checkpoint
from puna.model.config import RopeScaling
from puna.quant.apply import quantize_model
from puna.quant.formats import FORMATS
from puna.quant.plan import from_rows
from puna.testing import tiny_model, tiny_tokenizer
from puna.tokenizer import Tokenizer

SHARED = Path(__file__).parents[1].parent / "shared/data"
OVERRIDE = "PUNA_TRANSFORMERS_PYTHON"
IDS = [(37 * place) % 250 + 1 for place in range(1, 129)]
SIZES = {"hidden_size": 256, "intermediate_size": 768, "head_dim": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "untied, rope scaled": {"rope_scaling": RopeScaling(8.0, 1.0, 4.0, 128)},
    "tied, rope scaled": {"rope_scaling": RopeScaling(32.0, 1.0, 4.0, 128), "tie_word_embeddings": True},
}
# Types that we only read, and how llama.cpp calls the files that have them.
READ_ONLY = {"Q4_1": 3, "Q5_0": 8, "Q5_1": 9, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}
TEXTS = ["Don't WE'LL  \n\n 1234567\t x", "größe 日本語 🦙‍♀️ ﬁ", "<|eot_id|> is text", " " * 300 + "end"]
LIMITS = {"f32": 1e-5, "f16": 2e-3, "bf16": 1e-2, "int8": 3e-2, "rounded": 1e-2, "exact": 1e-4}

QUANTIZE = """
import ctypes, sys
import llama_cpp as lib
keep = lib.llama_log_callback(lambda level, text, data: None)
lib.llama_log_set(keep, ctypes.c_void_p(0))
settings = lib.llama_model_quantize_default_params()
settings.ftype, settings.pure = int(sys.argv[3]), sys.argv[4] == "pure"
sys.exit(lib.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(settings)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("gguf", "compressed-tensors"), help="one of the two")
    parser.add_argument("--vocabulary", type=Path, default=SHARED / "llama3/tokenizer.model", help="a real tokenizer")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="puna-") as name:
        folder = Path(name)
        if arguments.only != "compressed-tensors":
            python = rivals.llama_cpp()
            for check in (logits_of_llama_cpp(folder, python), quantiser(folder, python)):
                rows |= shown(check)
            rows |= shown(tokenizers(folder, python, arguments.vocabulary))
        if arguments.only != "gguf":
            rows |= shown(logits_of_transformers(folder, transformers()))
    failed = [row for row, result in rows.items() if not result["kept"]]
    print(json.dumps({"question": "do other programs compute what we export?", "checks": rows, "failed": failed}))
    sys.exit(1 if failed else 0)


def shown(check: Iterator[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    found = {}
    for name, result in check:
        found[name] = result
        print(f"{'ok  ' if result['kept'] else 'FAIL'} {name:44} {result['what']}", flush=True)
    return found


def row(agreement: Agreement, limit: float) -> dict[str, Any]:
    kept = agreement.relative_error < limit
    return {"what": str(agreement), "relative_error": agreement.relative_error, "limit": limit, "kept": kept}


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([IDS]))[0]


# llama.cpp ------------------------------------------------------------------------------------------------------------


def logits_of_llama_cpp(folder: Path, python: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, changes in SHAPES.items():
        checkpoint = Checkpoint.of(tiny_model(**SIZES, **changes), tiny_tokenizer())
        for kind in gguf.WRITTEN:
            gguf.save(folder / "a.gguf", checkpoint, kind)
            yield f"llama.cpp, {kind}, {name}", agreed(folder / "a.gguf", python, LIMITS.get(kind, LIMITS["int8"]))


def agreed(path: Path, python: Path, limit: float) -> dict[str, Any]:
    answer = run("llama_cpp", python, path, IDS)
    return row(compare(answer.logits_TV, logits(gguf.load(path).model())), limit)


def quantiser(folder: Path, python: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Our bytes beside llama.cpp's own, and its files in the types that we only read."""
    source = folder / "source.gguf"
    gguf.save(source, Checkpoint.of(tiny_model(**SIZES), tiny_tokenizer()), "f32")
    for kind, number in (("q8_0", 7), ("q4_0", 2)):
        gguf.save(folder / "ours.gguf", gguf.load(source), kind)
        requantize(python, source, folder / "theirs.gguf", number, "pure")
        ours, theirs = GgufFile(folder / "ours.gguf"), GgufFile(folder / "theirs.gguf")
        same = [name for name, entry in ours.tensors.items() if entry.kind == theirs.tensors[name].kind]
        equal = [name for name in same if torch.equal(ours.tensor(name), theirs.tensor(name))]
        what = f"{len(equal)} of {len(same)} tensors of one type hold the same numbers"
        yield f"llama.cpp's quantiser, {kind}", {"what": what, "kept": len(equal) == len(same)}
    for name, number in READ_ONLY.items():
        requantize(python, source, folder / "read.gguf", number, "mixed")
        kinds = {entry.kind.name for entry in GgufFile(folder / "read.gguf").tensors.values()} - {"F32"}
        yield f"read {name} ({', '.join(sorted(kinds))})", agreed(folder / "read.gguf", python, LIMITS["int8"])


def requantize(python: Path, source: Path, target: Path, number: int, mode: str) -> None:
    subprocess.run([str(python), "-c", QUANTIZE, str(source), str(target), str(number), mode], check=True)


def tokenizers(folder: Path, python: Path, vocabulary: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    files = sorted(Path(json.__file__).parent.glob("*.py"))
    texts = [*TEXTS, *(file.read_text(encoding="utf-8") for file in files)]
    found = {"trained here": Tokenizer.train(texts, 2000, num_reserved_special_tokens=16)}
    if vocabulary.exists():
        found["Llama 3's"] = Tokenizer.load(vocabulary)
    for name, tokenizer in found.items():
        sizes = {"vocab_size": tokenizer.vocab_size, "bos_token_id": tokenizer.bos_id}
        model = tiny_model(**sizes, eos_token_id=tokenizer.stop_ids)
        gguf.save(folder / "tokens.gguf", Checkpoint.of(model, tokenizer), "q8_0")
        answer = run("llama_cpp", python, folder / "tokens.gguf", IDS, texts)
        expected = [tokenizer.encode(text) for text in texts]
        same = sum(a == b for a, b in zip(answer.encoded, expected, strict=True))
        ends = tuple(answer.details["ends"]) == tokenizer.stop_ids
        what = f"{same} of {len(texts)} texts have the same ids ({sum(map(len, expected)):,} in all)"
        yield f"llama.cpp's tokenizer, {name}", {"what": what, "kept": same == len(texts) and ends}


# transformers ---------------------------------------------------------------------------------------------------------


def transformers() -> Path:
    """The Python of an environment that adds compressed-tensors to the packages of this one."""
    if chosen := os.environ.get(OVERRIDE):
        return Path(chosen)
    folder = rivals.ENVIRONMENTS / "transformers"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        print(f"making {folder} (once) ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "shared.pth").write_text("\n".join(site.getsitepackages()) + "\n")
        install = [str(python), "-m", "pip", "install", "--quiet", "compressed-tensors", "accelerate"]
        subprocess.run(install, check=True, stdout=sys.stderr)
        subprocess.run([str(python), "-c", "import transformers, compressed_tensors"], check=True)
        ready.touch()
    return python


def logits_of_transformers(folder: Path, python: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    plans = {name: [("layers.*_proj", name)] for name in FORMATS if name not in ("bf16", "fp8-tensor")}
    plans["mixed"] = [("layers.*_proj", "int4-g32"), ("layers.0.mlp.*", "fp8"), ("layers.1.self_attn.*", "int8-wo")]
    plans["output matrix"] = [("layers.*_proj", "fp8"), ("lm_head", "int8-wo")]
    for name, rows in plans.items():
        for tied in (False, True):
            model = tiny_model(**SIZES, tie_word_embeddings=tied)
            checkpoint = Checkpoint.of(tiny_model(**SIZES, tie_word_embeddings=tied), tiny_tokenizer())
            plan = from_rows(rows, model.config, name)
            compressed_tensors.save(folder / "a", quantize_model(model, plan), plan, checkpoint, "float32")
            answer = run("transformers", python, folder / "a", IDS)
            agreement = compare(answer.logits_TV, logits(compressed_tensors.load_model(folder / "a", "float32")))
            # Where a product's last bit differs, an input may round to the next of the few levels of E4M3.
            rounds = any(plan.format(module).quantize_activations for module in plan.modules)
            limit = LIMITS["int8" if name == "int8" else "rounded" if rounds else "exact"]
            yield f"transformers, {name}, {'tied' if tied else 'untied'}", row(agreement, limit)


if __name__ == "__main__":
    main()
