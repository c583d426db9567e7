"""Llama 3's byte-level BPE: text to ids and back.

A text is split by a regular expression; a piece that is a token by itself takes that id, and any other is merged from
its bytes, lowest rank first. tiktoken does the work. The split here is Meta's, written so that tiktoken's engine runs
it faster and cannot overflow (see `PATTERN`): it answers every text as Meta's expression does, and also the runs of a
million blanks for which the engine gives up on that expression. No Unicode normalisation takes place.

Special tokens are never read out of a text unless the caller asks: that is the barrier against prompt injection.
A lone surrogate, which no valid Unicode text holds, is encoded as U+FFFD; a pair of them as the character it means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from puna.base.device import usable_cpus
from puna.base.errors import InputError, TokenizerError
from puna.tokenizer.special import least_count, roles, special_tokens

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# The expression of Llama 3 (arXiv 2407.21783 section 3.2), as its tokenizer.json and Meta's code hold it.
META_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The same splits. The first five branches have no look-around: grouped, they run as one automaton instead of five.
# The rest is reached only inside blanks without a line break: n of them before other text give n - 1 and 1, n at the
# end of the text stay together. The engine keeps a state for each repetition that it may take back, a million at most;
# so a long run is taken 256 at a time, while two blanks more are sure to follow, and never given back.
PATTERN = (
    r"(?:(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+)"
    r"|(?:\s{256}(?=\s\s))++(?:\s(?!\S))++|\s+(?!\S)|\s"
)
# Meta's reference cuts every text so; here it is the last resort for an engine that gives up.
_SLICE_CHARS = 400_000
_RUN_CHARS = 25_000
# Threads gain something from about this many characters each, and only where texts are not tiny: every call takes
# Python's lock again.
_THREAD_CHARS = 1 << 16
_THREAD_CHARS_PER_TEXT = 400
_DAMAGED = "The file is damaged or was edited: get it again."


class ByteLevelBPE:
    """A vocabulary with its encoder.

    Args:
        ranks: each token's bytes to its rank, which is its id; 0 to n - 1, the 256 single bytes among them.
        special: special token names to ids from n on, without gaps; None for the 256 of Llama 3.1.
        pattern: the split; another one than `PATTERN` is for tests.

    Attributes:
        ranks: as given.
        special: special token names to ids, in order of id.
        base_size: how many byte-level tokens there are; the first special id.
        vocab_size: how many ids there are.
        bos_id, eos_id, pad_id, start_header_id, end_header_id, eom_id, eot_id, python_tag_id: known by index, so
            a tokenizer that calls them otherwise works too.
        stop_ids: the ids that end an answer: eos, eom, eot.

    Raises:
        TokenizerError: ranks or special ids that leave gaps, or a byte without a token.
    """

    def __init__(
        self, ranks: Mapping[bytes, int], special: Mapping[str, int] | None = None, pattern: str = PATTERN
    ) -> None:
        import tiktoken

        check_ranks(ranks)
        special = special_tokens(len(ranks)) if special is None else special
        check_special(special, len(ranks))
        self.base_size = len(ranks)
        own = dict(ranks)
        self.ranks: Mapping[bytes, int] = MappingProxyType(own)
        self.special: Mapping[str, int] = MappingProxyType(dict(sorted(special.items(), key=lambda item: item[1])))
        self.vocab_size = len(ranks) + len(special)
        index = roles()
        self.bos_id = self.base_size + index.bos
        self.eos_id = self.base_size + index.eos
        self.pad_id = self.base_size + index.pad
        self.start_header_id = self.base_size + index.start_header
        self.end_header_id = self.base_size + index.end_header
        self.eom_id = self.base_size + index.eom
        self.eot_id = self.base_size + index.eot
        self.python_tag_id = self.base_size + index.python_tag
        self.stop_ids: tuple[int, ...] = (self.eos_id, self.eom_id, self.eot_id)
        self._special_names = list(self.special)
        self._pattern = pattern
        self._engine = tiktoken.Encoding("puna", pat_str=pattern, mergeable_ranks=own, special_tokens=dict(special))
        self._encode_text = self._engine.encode_ordinary

    def __len__(self) -> int:
        return self.vocab_size

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ByteLevelBPE):
            return NotImplemented
        return self.ranks == other.ranks and self.special == other.special

    def __hash__(self) -> int:
        return hash((self.base_size, tuple(self.special)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.base_size:,} byte-level and {len(self.special)} special tokens>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self.ranks), dict(self.special), self._pattern)

    def encode(self, text: str, bos: bool = False, eos: bool = False, allow_special: bool = False) -> list[int]:
        """Text to ids, those of tiktoken with Meta's expression.

        Args:
            text: any length.
            bos: put the start token before it.
            eos: put the end token after it.
            allow_special: read the names of special tokens in the text as special tokens. Only for text that the
                caller wrote; never for a user's, a tool's or a document's.
        """
        encode = self._encode_special if allow_special else self._encode_text
        try:
            ids = encode(text)
        except BaseException as error:  # the engine's panics are no Exceptions
            if not _gave_up(error):
                raise
            ids = [id for part in slices(text) for id in encode(part)]
        if bos:
            ids.insert(0, self.bos_id)
        if eos:
            ids.append(self.eos_id)
        return ids

    def encode_numpy(self, text: str, bos: bool = False, eos: bool = False) -> npt.NDArray[np.int32]:
        """`encode` into a new int32 array, without a Python list between: for large texts."""
        import numpy as np

        try:
            body = self._engine.encode_to_numpy(text, disallowed_special=())
        except BaseException as error:
            if not (_gave_up(error) or isinstance(error, UnicodeEncodeError)):
                raise
            body = np.array(self.encode(text), dtype=np.int32)
        ids = np.empty(bos + len(body) + eos, dtype=np.int32)
        ids[int(bos) : len(ids) - int(eos)] = body
        if bos:
            ids[0] = self.bos_id
        if eos:
            ids[-1] = self.eos_id
        return ids

    def encode_batch(
        self, texts: Iterable[str], bos: bool = False, eos: bool = False, threads: int | None = None
    ) -> list[list[int]]:
        """`encode` for each text, in order, on several threads where there is enough text for them.

        Args:
            texts: the texts.
            bos, eos: as for `encode`.
            threads: None for one for each processor.
        """
        from concurrent.futures import ThreadPoolExecutor

        texts = list(texts)
        chars = sum(map(len, texts))
        threads = min(threads or usable_cpus(), chars // _THREAD_CHARS)

        def encode_group(group: Sequence[str]) -> list[list[int]]:
            return [self.encode(text, bos, eos) for text in group]

        if threads <= 1 or chars < len(texts) * _THREAD_CHARS_PER_TEXT:
            return encode_group(texts)
        with ThreadPoolExecutor(threads) as pool:
            return [ids for group in pool.map(encode_group, _groups(texts)) for ids in group]

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Ids to text; bytes that are no UTF-8 become U+FFFD. Special tokens appear by name unless left out.

        Raises:
            InputError: an id that the vocabulary does not have.
        """
        return self.decode_bytes(ids, skip_special).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int], skip_special: bool = False) -> bytes:
        """`decode` without the reading as UTF-8, so nothing is lost."""
        ids = _plain(ids)
        if skip_special:
            ids = [id for id in ids if not self.is_special(id)]
        try:
            return self._engine.decode_bytes(ids)
        except (KeyError, OverflowError) as error:
            unknown = next(id for id in ids if not 0 <= id < self.vocab_size)
            raise InputError(
                f"{unknown} is no id of this tokenizer; its ids are 0 to {self.vocab_size - 1}."
            ) from error

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token; a special token's are its name."""
        return self.decode_bytes([id])

    def is_special(self, id: int) -> bool:
        return self.base_size <= id < self.vocab_size

    def special_name(self, id: int) -> str:
        """The name of a special token."""
        if not self.is_special(id):
            raise InputError(
                f"{id} is no special token; these are {self.base_size} to {self.vocab_size - 1} in this tokenizer."
            )
        return self._special_names[id - self.base_size]

    def _encode_special(self, text: str) -> list[int]:
        return self._engine.encode(text, allowed_special="all")


def check_ranks(ranks: Mapping[bytes, int], source: str = "The vocabulary") -> None:
    """Refuses ranks that are not 0 to n - 1, each once, or that lack a single byte."""
    found = set(ranks.values())
    if len(found) < len(ranks):
        raise TokenizerError(f"{source} gives {len(ranks) - len(found)} ranks to two tokens each.", hint=_DAMAGED)
    if found != set(range(len(ranks))):
        missing = next(rank for rank in range(len(ranks)) if rank not in found)
        raise TokenizerError(
            f"{source} has {len(ranks)} tokens and none of rank {missing}; ranks must go from 0 without gaps.",
            hint=_DAMAGED,
        )
    lacking = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if lacking:
        raise TokenizerError(
            f"{source} has no token for {len(lacking)} of the 256 bytes (the first is 0x{lacking[0]:02x}).",
            hint="It is no byte-level BPE, or the file was cut short: get it again.",
        )


def check_special(special: Mapping[str, int], base: int, source: str = "The vocabulary") -> None:
    """Refuses special ids that do not follow the `base` byte-level tokens without gaps, or that are too few."""
    if sorted(special.values()) != list(range(base, base + len(special))):
        raise TokenizerError(
            f"The special tokens of {source[0].lower() + source[1:]} do not have the ids from {base} on, each once.",
            hint="Llama 3 numbers them right after the byte-level tokens.",
        )
    if len(special) < least_count():
        raise TokenizerError(
            f"{source} has {len(special)} special tokens; Llama 3's formats need {least_count()}.",
            hint="Add reserved ones up to 256, as Llama 3 has.",
        )


def without_surrogates(text: str) -> str:
    """Pairs of surrogates joined to the characters they mean, lone ones replaced by U+FFFD; other text as it is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def slices(text: str) -> Iterator[str]:
    """Meta's cuts: slices of 400,000 characters, and at most 25,000 blanks or non-blanks in a row in each part."""
    for start in range(0, len(text), _SLICE_CHARS):
        piece = text[start : start + _SLICE_CHARS]
        begin = 0
        for run in re.finditer(r"\s+|\S+", piece):
            for cut in range(run.start() + _RUN_CHARS, run.end(), _RUN_CHARS):
                yield piece[begin:cut]
                begin = cut
        yield piece[begin:]


def _gave_up(error: BaseException) -> bool:
    """Whether the engine's regular expression ran out of stack: a Rust panic, or a ValueError on some of its paths."""
    if type(error).__name__ == "PanicException":
        return True
    return isinstance(error, ValueError) and not isinstance(error, UnicodeError)


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """Neighbouring texts of together about `_THREAD_CHARS` characters: one thread's next piece of work."""
    group: list[str] = []
    chars = 0
    for text in texts:
        group.append(text)
        chars += len(text)
        if chars >= _THREAD_CHARS:
            yield group
            group, chars = [], 0
    if group:
        yield group


def _plain(ids: Any) -> list[int]:
    """A list of Python's ints from any iterable, an array or a tensor."""
    return ids.tolist() if hasattr(ids, "tolist") else list(ids)
