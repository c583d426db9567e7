"""`Tokenizer`: Llama 3's tokenizer, loaded or trained, with its files and its chat format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from puna.base.errors import ConfigError, TokenizerError
from puna.base.files import atomic_write
from puna.base.progress import Progress
from puna.tokenizer.bpe import ByteLevelBPE
from puna.tokenizer.chat import ChatFormat
from puna.tokenizer.decoding import IncrementalDecoder
from puna.tokenizer.formats import read_tiktoken, read_tokenizer_json, tiktoken_bytes, tokenizer_json
from puna.tokenizer.preamble import tool_prompt
from puna.tokenizer.special import special_count, special_tokens
from puna.tokenizer.training import train_ranks

MODEL = "tokenizer.model"
JSON = "tokenizer.json"
CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
_CONTEXT = 131_072  # tokens, the context of Llama 3.1


class Tokenizer(ByteLevelBPE):
    """Text to ids and back, as Llama 3.1 does.

        tokenizer = Tokenizer.load("Llama-3.1-8B-Instruct")
        ids = tokenizer.encode("Hello", bos=True)
        prompt = tokenizer.chat.render([Message("user", "Hello")])

    See `ByteLevelBPE` for the arguments, the attributes and for encoding and decoding.
    """

    @classmethod
    def load(
        cls, path: Path | str, num_reserved_special_tokens: int | None = None, special_names: str = "3.1"
    ) -> Tokenizer:
        """Reads a tokenizer.

        Args:
            path: a tiktoken `tokenizer.model`, a `tokenizer.json`, or a folder that holds one of them or both, which
                must then agree.
            num_reserved_special_tokens: how many special tokens a `tokenizer.model` has, which does not list them;
                None for 256. Names and count of a `tokenizer.json` are its own.
            special_names: what they are called: "3.1", "3.1-meta" (Meta's names for two of them), or "3" (the Llama 3
                of April 2024).

        Raises:
            TokenizerError: nothing there, or nothing that can be read.
            ConfigError: special tokens that cannot be.
        """
        path = Path(path)
        model, data = (path / MODEL, path / JSON) if path.is_dir() else (path, path)
        if path.is_dir():
            if not model.exists() and not data.exists():
                raise TokenizerError(f"The folder {path} holds neither {MODEL} nor {JSON}.", hint="Check the path.")
        elif not path.exists():
            raise TokenizerError(f"There is no tokenizer {path}.", hint=f"Give a {MODEL}, a {JSON} or their folder.")
        elif _is_json(path):
            return cls(*read_tokenizer_json(path))
        if not model.exists():
            return cls(*read_tokenizer_json(data))
        ranks = read_tiktoken(model)
        if path.is_dir() and data.exists():
            listed, special = read_tokenizer_json(data, check_merges=False)
            _check_agreement(ranks, listed, path)
            return cls(ranks, special)
        return cls(ranks, special_tokens(len(ranks), num_reserved_special_tokens, special_names))

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        min_frequency: int = 2,
        num_reserved_special_tokens: int | None = None,
        progress: Progress | None = None,
    ) -> Tokenizer:
        """Learns a tokenizer from texts, the same one from the same texts on every run.

        Args:
            texts: read once, so a generator will do; at most 2,147,483,647 bytes of UTF-8, see
                `puna.tokenizer.training`.
            vocab_size: all ids, the special ones included, as a model's vocab_size counts them. From few texts fewer
                tokens can be learnt; the result's `vocab_size` then tells how many there are.
            min_frequency: a pair that appears less often is never merged.
            num_reserved_special_tokens: how many special tokens, the named ones included; None for 256.
            progress: where to report the bytes read.

        Raises:
            ConfigError: a vocab_size below the 256 bytes and the special tokens.
            InputError: an item that is not a string, or too much text.
        """
        specials = special_count() if num_reserved_special_tokens is None else num_reserved_special_tokens
        if vocab_size < 256 + specials:
            raise ConfigError(
                f"vocab_size is {vocab_size}; the 256 bytes and {specials} special tokens need {256 + specials}.",
                hint=f"Give at least {256 + specials}; a few thousand is usual for a small corpus.",
            )
        special = special_tokens(0, specials)  # refuses a bad count before the long work
        ranks = train_ranks(texts, vocab_size - specials, min_frequency, progress)
        return cls(ranks, {name: len(ranks) + index for name, index in special.items()})

    def save(self, folder: Path | str) -> None:
        """Writes `tokenizer.model`, `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`.

        All give the ids of this tokenizer, in tiktoken, tokenizers and transformers. Other files of the folder stay.
        The four are written whole beside their places and renamed at the end.

        Raises:
            StorageError: the folder cannot be written.
        """
        folder = Path(folder)
        template = self.chat_template()
        contents = {
            MODEL: tiktoken_bytes(self.ranks),
            JSON: _json_bytes(tokenizer_json(self.ranks, self.special), indent=None),
            CONFIG: _json_bytes(self._config(template), indent=2),
            TEMPLATE: template.encode(),
        }
        with ExitStack() as files:
            for name, content in contents.items():
                files.enter_context(atomic_write(folder / name)).write(content)

    def chat_template(self) -> str:
        """The Jinja template that makes transformers' `apply_chat_template` give the ids of `chat.render`.

        It covers the default style, and contents that neither hold names of special tokens, which transformers reads
        as such, nor begin with a line break.
        """
        template = (resources.files("puna.tokenizer") / "assets" / TEMPLATE).read_text(encoding="utf-8")
        before, after = tool_prompt("json").split("{functions}")
        for name, text in (("TOOL_PROMPT_BEFORE", before), ("TOOL_PROMPT_AFTER", after)):
            template = template.replace(json.dumps(name), json.dumps(text))
        usual = special_tokens(self.base_size)
        return re.sub(r"<\|\w+\|>", lambda match: self.special_name(usual[match[0]]), template)

    @cached_property
    def chat(self) -> ChatFormat:
        """The chat format in its default style; for another one make a `ChatFormat(tokenizer, ChatStyle(...))`."""
        return ChatFormat(self)

    def decoder(self, skip_special: bool = False) -> IncrementalDecoder:
        """For text that is shown while its ids are still coming."""
        return IncrementalDecoder(self, skip_special)

    def _config(self, template: str) -> dict[str, Any]:
        """What transformers needs beside `tokenizer.json`; the end token is that of a turn, as for chat models."""
        flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
        return {
            "added_tokens_decoder": {
                str(id): {"content": name, **flags, "special": True} for name, id in self.special.items()
            },
            "bos_token": self.special_name(self.bos_id),
            "chat_template": template,
            "clean_up_tokenization_spaces": False,
            "eos_token": self.special_name(self.eot_id),
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": _CONTEXT,
            "pad_token": self.special_name(self.pad_id),
            "tokenizer_class": "PreTrainedTokenizerFast",
        }


def _is_json(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip()[:1] == b"{"
    except OSError as error:
        raise TokenizerError(f"Cannot read {path}: {error.strerror}.", hint="Check its permissions.") from error


def _check_agreement(ranks: Mapping[bytes, int], listed: Mapping[bytes, int], folder: Path) -> None:
    if ranks == listed:
        return
    differing = next(token for token in [*ranks, *listed] if ranks.get(token) != listed.get(token))
    raise TokenizerError(
        f"{folder}: {MODEL} gives the token {differing!r} rank {ranks.get(differing)}, "
        f"and {JSON} gives it {listed.get(differing)}.",
        hint="They belong to different models: take the wrong one away.",
    )


def _json_bytes(data: Any, indent: int | None) -> bytes:
    return (json.dumps(data, ensure_ascii=False, indent=indent) + "\n").encode()
