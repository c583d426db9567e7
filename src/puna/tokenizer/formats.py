"""The files a tokenizer lives in: tiktoken's `tokenizer.model`, and `tokenizer.json` for tokenizers and transformers.

tiktoken's file lists tokens by rank and knows no special ones. `tokenizer.json` holds merges, which tiktoken's does
not: they are rebuilt from every split of a token into two tokens. Both then give the same ids, because the whole-piece
rule (`ignore_merges`) and the order of merges are the same. Only files that split and merge as Llama 3 does are
read; any other would load and then give other ids than its owner's.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puna.base.errors import ArtifactError, TokenizerError
from puna.base.files import read_json
from puna.tokenizer.bpe import META_PATTERN, check_ranks, check_special

_GET_AGAIN = "The file is damaged: get it again."


def read_tiktoken(path: Path | str) -> dict[bytes, int]:
    """Ranks of a `tokenizer.model`: one token a line, its bytes in base64, a space, its rank.

    Raises:
        TokenizerError: a missing file, a line of another form (named by number), a token or rank that appears twice,
            a rank that is missing.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"Cannot read {path}: {error.strerror}.", hint="Check the path.") from error
    if data.startswith(b"\n"):
        raise TokenizerError(
            f"{path} is a SentencePiece model, as Llama 1 and 2 have.", hint="Puna reads the tokenizers of Llama 3."
        )
    ranks = _whole_tiktoken(data) or _tiktoken_by_line(data, path)
    check_ranks(ranks, str(path))
    return ranks


def _whole_tiktoken(data: bytes) -> dict[bytes, int] | None:
    """All lines at once, which is five times as fast as one by one; None where anything is wrong with any of them."""
    words = data.split()
    try:
        tokens = [binascii.a2b_base64(word, strict_mode=True) for word in words[::2]]
        ranks = dict(zip(tokens, map(int, words[1::2]), strict=True))
    except ValueError:
        return None
    lines = sum(1 for line in data.splitlines() if line.strip())
    return ranks if len(set(ranks.values())) == len(ranks) == len(tokens) == lines else None


def _tiktoken_by_line(data: bytes, path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    lines: dict[int, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        token, rank = _tiktoken_line(line, f"{path}, line {number}")
        if token in ranks or rank in lines:
            what, first = (f"token {token!r}", lines[ranks[token]]) if token in ranks else (f"rank {rank}", lines[rank])
            raise TokenizerError(f"{path}, line {number}: {what} stands in line {first} too.", hint=_GET_AGAIN)
        ranks[token] = rank
        lines[rank] = number
    return ranks


def _tiktoken_line(line: bytes, where: str) -> tuple[bytes, int]:
    try:
        token, rank = line.split()
        return base64.b64decode(token, validate=True), int(rank)
    except (binascii.Error, ValueError) as error:
        shown = line[:40].decode("utf-8", errors="replace")
        raise TokenizerError(
            f"{where} is {shown!r}; it must be a token in base64, a space and a rank.",
            hint="It is no tiktoken file, or it was cut short: get it again.",
        ) from error


def tiktoken_bytes(ranks: Mapping[bytes, int]) -> bytes:
    """The inverse of `read_tiktoken`."""
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ordered)


def read_tokenizer_json(path: Path | str, check_merges: bool = True) -> tuple[dict[bytes, int], dict[str, int]]:
    """Ranks and special tokens of a `tokenizer.json`.

    Every added token counts as special, whatever the file calls it: none is ever read out of a text.

    Args:
        path: the file.
        check_merges: verify that its merges are those that the ranks give. It takes about as long as the reading.

    Raises:
        TokenizerError: a missing or damaged file, or one that splits, merges or normalises otherwise than Llama 3.
    """
    path = Path(path)
    try:
        data = read_json(path)
    except ArtifactError as error:
        raise TokenizerError(error.message, hint=error.hint) from error
    except OSError as error:
        raise TokenizerError(f"Cannot read {path}: {error.strerror}.", hint="Check the path.") from error
    try:
        model = data["model"]
        vocabulary: dict[str, int] = model["vocab"]
        added = {token["content"]: token["id"] for token in data["added_tokens"]}
        _check_kind(data, path)
        ranks = {to_bytes(token): rank for token, rank in vocabulary.items() if token not in added}
        listed: list[Any] = model["merges"]
    except KeyError as error:
        raise _other_kind(path, f"lacks {error.args[0]!r}") from error
    except (TypeError, AttributeError, IndexError) as error:
        raise _other_kind(path, f"does not have its form ({error})") from error
    check_ranks(ranks, str(path))
    check_special(added, len(ranks), str(path))
    if check_merges:
        _check_merges(listed, ranks, path)
    return ranks, added


def _check_kind(data: Mapping[str, Any], path: Path) -> None:
    """Refuses what would give other ids than byte-level BPE with Llama 3's split and whole-piece rule."""
    model, steps = data["model"], data["pre_tokenizer"]
    steps = steps["pretokenizers"] if steps and steps["type"] == "Sequence" else [steps]
    kinds = [step and step["type"] for step in steps]
    if model.get("type", "BPE") != "BPE" or kinds[-1] != "ByteLevel" or model.get("byte_fallback"):
        raise _other_kind(path, f"is {model.get('type')} after {kinds[-1]}")
    if kinds != ["Split", "ByteLevel"] or steps[0]["pattern"].get("Regex") != META_PATTERN:
        raise _other_kind(path, "splits text by another rule")
    if (
        steps[0]["behavior"] != "Isolated"
        or steps[0]["invert"]
        or steps[1]["add_prefix_space"]
        or steps[1]["use_regex"]
    ):
        raise _other_kind(path, "splits text by another rule")
    if data.get("normalizer"):
        raise _other_kind(path, "changes the text before it splits it (its normalizer is set)")
    if not model.get("ignore_merges"):
        raise TokenizerError(
            f"{path} merges pieces that are tokens by themselves (model.ignore_merges is not true).",
            hint="Llama 3 takes such a piece whole. Set ignore_merges to true if the model was trained so.",
        )


def _other_kind(path: Path, how: str) -> TokenizerError:
    return TokenizerError(
        f"{path} {how}; Puna reads the byte-level BPE of Llama 3.",
        hint="Use the tokenizer of a Llama 3 model, or train one with Tokenizer.train.",
    )


def _check_merges(listed: list[Any], ranks: Mapping[bytes, int], path: Path) -> None:
    expected = [f"{left} {right}" for left, right in merges(ranks)]
    found = [merge if isinstance(merge, str) else " ".join(merge) for merge in listed]
    if found == expected:
        return
    if sorted(found) == sorted(expected):
        how = f"lists its {len(found):,} merges in another order than that of its ids"
    else:
        how = f"lists {len(found):,} merges, and its tokens can be merged in {len(expected):,} ways"
    raise _other_kind(path, how)


def merges(ranks: Mapping[bytes, int]) -> list[tuple[str, str]]:
    """Every pair of tokens that joins to a token, in byte-level letters, by the rank of the whole, the left, the right.

    Merging by this list gives what merging by rank gives: each step joins the pair whose whole has the lowest rank.
    """
    pairs = [
        (rank, ranks[token[:cut]], ranks[token[cut:]])
        for token, rank in ranks.items()
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    pairs.sort()
    letters = {rank: to_letters(token) for token, rank in ranks.items()}
    return [(letters[left], letters[right]) for _, left, right in pairs]


def tokenizer_json(ranks: Mapping[bytes, int], special: Mapping[str, int]) -> dict[str, Any]:
    """The content of a `tokenizer.json` that gives the ids of these ranks, and puts the start token before a text."""
    bos, bos_id = next(iter(special.items()))
    first = {"SpecialToken": {"id": bos, "type_id": 0}}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    plain = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, "content": name, **flags, "special": True} for name, id in special.items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": META_PATTERN}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", **plain},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                first,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": bos, "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
        },
        "decoder": {"type": "ByteLevel", **plain},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {to_letters(token): rank for token, rank in ordered},
            "merges": [f"{left} {right}" for left, right in merges(ranks)],
        },
    }


def _byte_letters() -> list[str]:
    """GPT-2's letters for the bytes: a printable Latin-1 character for itself, the other 68 from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


_LETTERS = dict(enumerate(_byte_letters()))
_BYTES = {letter: byte for byte, letter in _LETTERS.items()}
_SPACE = _LETTERS[ord(" ")]


def to_letters(token: bytes) -> str:
    return token.decode("latin-1").translate(_LETTERS)


def to_bytes(letters: str) -> bytes:
    # Most tokens are plain ASCII, which stands for itself, with at most a space before it.
    word = letters[1:] if letters.startswith(_SPACE) else letters
    if word.isascii() and word.isprintable() and " " not in word:
        return (" " + word).encode() if word is not letters else word.encode()
    return bytes(map(_BYTES.__getitem__, letters))


def byte_order() -> list[int]:
    """The bytes in the order of their ranks: as their letters sort, so that rank 0 is "!"."""
    return sorted(range(256), key=_LETTERS.__getitem__)
