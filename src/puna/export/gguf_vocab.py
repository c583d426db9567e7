"""A tokenizer as GGUF metadata (`tokenizer.ggml.*`), and back.

llama.cpp's "gpt2" model is byte-level BPE with tokens in GPT-2's letters; its pre-tokenizer "llama-bpe" is Llama 3's
split with the rule that a piece which is a token is taken whole. A model may have more rows than its tokenizer has
tokens: they are listed as unused. Of other tokenizers (SentencePiece, or another split) a reader could give other ids
than their owner's, so they are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from puna.base.errors import CheckpointError, TokenizerError
from puna.export.gguf_file import Entry, value_of
from puna.model.config import ModelConfig
from puna.tokenizer import Tokenizer
from puna.tokenizer.formats import merges, to_bytes, to_letters

# Names under which llama.cpp runs Llama 3's split.
_PRE = ("llama-bpe", "llama3", "llama-v3")
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 3, 4, 5, 6
_ENDS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
_NONE = "none"
_OTHER = "Puna reads the byte-level BPE of Llama 3 (tokenizer.ggml.model gpt2, tokenizer.ggml.pre llama-bpe)."


def write_tokenizer(tokenizer: Tokenizer | None, config: ModelConfig) -> dict[str, Entry]:
    """The entries of a tokenizer, or those of a model that has none and is run by ids alone."""
    if tokenizer is None:
        return {"tokenizer.ggml.model": ("string", _NONE), **_ends(config, None)}
    ordered = sorted(tokenizer.ranks.items(), key=lambda item: item[1])
    unused = range(tokenizer.vocab_size, config.vocab_size)
    tokens = [to_letters(token) for token, _ in ordered] + [*tokenizer.special, *(f"[PAD{id}]" for id in unused)]
    types = [_NORMAL] * len(ordered) + [_CONTROL] * len(tokenizer.special) + [_UNUSED] * len(unused)
    return {
        "tokenizer.ggml.model": ("string", "gpt2"),
        "tokenizer.ggml.pre": ("string", _PRE[0]),
        "tokenizer.ggml.tokens": ("[string]", tokens),
        "tokenizer.ggml.token_type": ("[int32]", types),
        "tokenizer.ggml.merges": ("[string]", [f"{left} {right}" for left, right in merges(tokenizer.ranks)]),
        "tokenizer.ggml.add_bos_token": ("bool", True),
        "tokenizer.ggml.padding_token_id": ("uint32", tokenizer.pad_id),
        "tokenizer.chat_template": ("string", tokenizer.chat_template()),
        **_ends(config, tokenizer),
    }


def _ends(config: ModelConfig, tokenizer: Tokenizer | None) -> dict[str, Entry]:
    """The tokens that begin and end texts. GGUF has one key for each way of ending; the last key holds all of ours."""
    ends = config.eos_token_id
    entries: dict[str, Entry] = {"tokenizer.ggml.bos_token_id": ("uint32", config.bos_token_id)}
    if ends:
        turn = tokenizer.eot_id if tokenizer else ends[0]
        entries["tokenizer.ggml.eos_token_id"] = ("uint32", turn if turn in ends else ends[0])
    if tokenizer and tokenizer.eot_id in ends:
        entries["tokenizer.ggml.eot_token_id"] = ("uint32", tokenizer.eot_id)
    if tokenizer and tokenizer.eom_id in ends:
        entries["tokenizer.ggml.eom_token_id"] = ("uint32", tokenizer.eom_id)
    entries["puna.eos_token_ids"] = ("[uint32]", list(ends))
    return entries


def end_ids(metadata: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids that end a generation.

    Our own list where its ids agree with the keys of other programs; else those of the keys, and what llama.cpp adds to
    them: the tokens that bear the names of Llama 3's ends.
    """
    found = [value_of(metadata, f"tokenizer.ggml.{kind}_token_id", "whole number") for kind in ("eos", "eot", "eom")]
    named = {id for id in found if id is not None}
    own = value_of(metadata, "puna.eos_token_ids", "list of whole numbers")
    if own is not None and named <= set(own.tolist()):
        return tuple(own.tolist())
    tokens = value_of(metadata, "tokenizer.ggml.tokens", "list of texts", ())
    return tuple(sorted(named | {id for id, name in enumerate(tokens) if name in _ENDS}))


def read_tokenizer(metadata: Mapping[str, Any], source: str) -> Tokenizer | None:
    """The tokenizer of a file; None where it says that it has none.

    Raises:
        TokenizerError: another kind of tokenizer, or lists that contradict each other.
    """
    model = value_of(metadata, "tokenizer.ggml.model", "text", _NONE)
    pre = value_of(metadata, "tokenizer.ggml.pre", "text")
    if model in (_NONE, "no_vocab"):
        return None
    if model != "gpt2" or pre not in _PRE:
        raise TokenizerError(f"{source} has a tokenizer of the kind {model!r} with the split {pre!r}.", hint=_OTHER)
    tokens, types = _lists(metadata, source)
    base = next((id for id, kind in enumerate(types) if kind not in (_NORMAL, _BYTE)), len(tokens))
    end = next((id for id in range(base, len(types)) if types[id] == _UNUSED), len(tokens))
    for place in range(base, len(types)):
        if types[place] not in ((_CONTROL, _USER_DEFINED) if place < end else (_UNUSED,)):
            raise TokenizerError(
                f"{source}: token {place} {tokens[place]!r} is of type {types[place]}; special tokens must follow the "
                "ordinary ones without gaps.",
                hint=_OTHER,
            )
    special = {name: base + place for place, name in enumerate(tokens[base:end])}
    if len(special) < end - base:
        raise TokenizerError(f"{source} gives one name to several special tokens.")
    tokenizer = Tokenizer(_ranks(tokens[:base], source), special)
    _check_merges(metadata, tokenizer, source)
    return tokenizer


def _lists(metadata: Mapping[str, Any], source: str) -> tuple[Sequence[str], Sequence[int]]:
    tokens = value_of(metadata, "tokenizer.ggml.tokens", "list of texts")
    if tokens is None:
        raise CheckpointError(f"{source} names a tokenizer and lists no tokens.")
    listed = value_of(metadata, "tokenizer.ggml.token_type", "list of whole numbers")
    types = [] if listed is None else listed.tolist()
    if len(types) != len(tokens):
        raise CheckpointError(f"{source} lists {len(tokens):,} tokens and {len(types):,} types of tokens.")
    return tokens, types


def _ranks(tokens: Sequence[str], source: str) -> dict[bytes, int]:
    try:
        return {to_bytes(letters): rank for rank, letters in enumerate(tokens)}
    except KeyError as error:
        raise TokenizerError(f"{source} has a token with {error.args[0]!r}, which is no letter of GPT-2's.") from error


def _check_merges(metadata: Mapping[str, Any], tokenizer: Tokenizer, source: str) -> None:
    """Refuses merges that are not those of the tokens: the file's owner would get other ids than this tokenizer's."""
    expected = [f"{left} {right}" for left, right in merges(tokenizer.ranks)]
    found = value_of(metadata, "tokenizer.ggml.merges", "list of texts", [])
    if found == expected:
        return
    if sorted(found) == sorted(expected):
        how = f"lists its {len(found):,} merges in another order than that of its ids"
    else:
        how = f"lists {len(found):,} merges, and its tokens can be merged in {len(expected):,} ways"
    raise TokenizerError(f"{source} {how}.", hint=_OTHER)
