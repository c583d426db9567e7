"""Checkpoints of random weights for benchmarks: the shape decides the speed, and the real weights are not at hand.

They are written once, tensor by tensor, into a cache folder, with a tokenizer that fills the vocabulary and stands for
no language. Two kinds: `random` (every output looks drawn by lot, and no token ends an answer), and `by_heart`, which
continues any token with its successor in one fixed cycle whatever else it reads. It does all the work of a model of its
size and copies the text that it knows, so that an edit of that text can be asked of it.

The same weights are also written as GGUF, in llama.cpp's names and order of rotary channels, with llama.cpp's own
quantiser for its quantised types.
"""

from __future__ import annotations

import math
import os
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from puna.commands.benchmarking import plain_tokenizer
from puna.model.checkpoint import Checkpoint
from puna.model.config import ModelConfig, named_size
from puna.model.transformer import shapes
from puna.tokenizer.special import special_count

STRIDE = 17_041  # of the cycle of `by_heart`: odd and not a multiple of 5, so that it visits all 128,000 tokens


def cache_folder(chosen: Path | None = None) -> Path:
    """Where checkpoints are kept: the given folder, $PUNA_CACHE, or the user's cache."""
    if chosen is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        chosen = Path(os.environ.get("PUNA_CACHE") or Path(home) / "puna") / "benchmarks"
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def ordinary(size: str) -> int:
    """How many tokens of a named size are not special: the ids below this number."""
    return named_size(size).vocab_size - special_count()


def successor(token: int, ordinary: int) -> int:
    """The token that `by_heart` puts after `token`, of the `ordinary` ones that are not special."""
    return (token + STRIDE) % ordinary


class RandomWeights(Mapping[str, Tensor]):
    """Draws each tensor when it is asked for; the same seed and name give the same numbers.

    Projections keep the scale of what they project. Special tokens have rows of zeros in the output matrix, so that
    their logit, 0, is below the best of a hundred thousand others.
    """

    def __init__(self, config: ModelConfig, seed: int = 0, *, by_heart: bool = False) -> None:
        self.config, self.seed, self.by_heart = config, seed, by_heart
        self.ordinary = config.vocab_size - special_count()

    def __iter__(self) -> Iterator[str]:
        return iter(shapes(self.config))

    def __len__(self) -> int:
        return len(shapes(self.config))

    def __getitem__(self, name: str) -> Tensor:
        if name == "lm_head.weight" and self.by_heart:
            # The row of a token's successor is the token's own embedding.
            embedding_VD = self["embed_tokens.weight"]
            head_VD = torch.zeros_like(embedding_VD)
            tokens_V = torch.arange(self.ordinary)
            head_VD[(tokens_V + STRIDE) % self.ordinary] = embedding_VD[: self.ordinary]
            return head_VD
        shape = shapes(self.config)[name]
        if len(shape) == 1:
            return torch.ones(shape, dtype=torch.bfloat16)
        generator = torch.Generator().manual_seed(self.seed * 2**32 + zlib.crc32(name.encode()))
        tensor = torch.empty(shape).normal_(0.0, self._std(name, shape), generator=generator).to(torch.bfloat16)
        if name in ("embed_tokens.weight", "lm_head.weight"):
            tensor[self.ordinary :] = 0
        return tensor

    def _std(self, name: str, shape: Sequence[int]) -> float:
        if name == "embed_tokens.weight":
            return 1.0 if self.by_heart else 0.02
        gain = shape[1] ** -0.5
        if self.by_heart and name.endswith(("o_proj.weight", "down_proj.weight")):
            # What the layers add stays small beside the embedding, which alone chooses the next token.
            gain *= 0.3 * (2 * self.config.num_hidden_layers) ** -0.5
        return gain


def random(size: str, cache: Path) -> Path:
    """A folder in Hugging Face's layout with random bfloat16 weights of a named size."""
    return _written(cache / f"{size}-random", named_size(size))


def by_heart(size: str, cache: Path) -> Path:
    """The same with an output matrix of its own, which makes the greedy answer the successor of the last token."""
    return _written(cache / f"{size}-by-heart", replace(named_size(size), tie_word_embeddings=False), by_heart=True)


def _written(folder: Path, config: ModelConfig, *, by_heart: bool = False) -> Path:
    if not folder.exists():
        print(f"writing {folder} ...", file=sys.stderr)
        weights = RandomWeights(config, by_heart=by_heart)
        Checkpoint(config, weights, plain_tokenizer(config.vocab_size)).save(folder, dtype="bfloat16")
    return folder


def quantized(checkpoint: Path, recipe: str, head: str) -> Path:
    """The checkpoint by a recipe of `puna quantize`, rounded to nearest, with an output matrix of the format `head`."""
    from puna.export import compressed_tensors
    from puna.quant.apply import quantize_model
    from puna.quant.plan import from_recipe

    folder = checkpoint.with_name(f"{checkpoint.name}-{recipe}-{head}")
    if not folder.exists():
        print(f"writing {folder} ...", file=sys.stderr)
        source = Checkpoint.load(checkpoint)
        plan = from_recipe(recipe, source.config, head)
        model = quantize_model(source.model("bfloat16").requires_grad_(False), plan)
        compressed_tensors.save(folder, model, plan, source)
    return folder


def gguf(checkpoint: Path, cache: Path) -> Path:
    """The checkpoint as one GGUF file in BF16, from which llama.cpp's quantiser makes its other types."""
    from puna.export import gguf as export

    path = cache / f"{checkpoint.name}-bf16.gguf"
    if not path.exists():
        print(f"writing {path} ...", file=sys.stderr)
        export.save(path, Checkpoint.load(checkpoint), "bf16")
    return path


def gguf_bytes(path: Path) -> int:
    """As `stored_bytes`, of a GGUF file."""
    from puna.export.gguf_file import GgufFile

    tensors = GgufFile(path).tensors
    skipped = {"token_embd.weight"} if "output.weight" in tensors else set()
    return sum(entry.bytes for name, entry in tensors.items() if name not in skipped)


def stored_bytes(folder: Path) -> int:
    """Bytes of a checkpoint's weights that one token reads: all but an embedding that is not the output matrix."""
    from safetensors import safe_open

    total, embedding, separate = 0, 0, False
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                part = opened.get_slice(name)
                bits = int("".join(filter(str.isdigit, part.get_dtype().split("_")[0])) or 8)
                size = math.prod(part.get_shape()) * bits // 8
                total += size
                separate |= name.startswith("lm_head.")
                embedding += size if name == "model.embed_tokens.weight" else 0
    return total - (embedding if separate else 0)
