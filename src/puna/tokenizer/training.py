"""Learning a byte-level BPE vocabulary from text, with Llama 3's split.

The `tokenizers` library counts and merges; ties fall the same way on every run, so equal texts give equal vocabularies.
It keeps each piece of text once with its count, so memory follows the number of different words; but it sums pairs in
32 bits, and wraps around in silence past 2,147,483,647. No pair can be more frequent than there are bytes, so a corpus
of more bytes is refused here: train on a sample, as every large model's tokenizer was. Choosing the sample is left to
the caller, who knows what the corpus is made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from puna.base.errors import ConfigError, InputError
from puna.base.progress import Progress, Silent
from puna.tokenizer.bpe import META_PATTERN, without_surrogates
from puna.tokenizer.formats import byte_order, to_bytes

MAX_BYTES = 2**31 - 1
# A text is handed over in parts of about so many characters: the trainer holds several times a part's size.
_PART_CHARS = 1 << 20


def train_ranks(
    texts: Iterable[str], size: int, min_frequency: int = 2, progress: Progress | None = None
) -> dict[bytes, int]:
    """Ranks of at most `size` tokens: the 256 bytes, "!" first, then what was merged, in order.

    Args:
        texts: read once.
        size: at least 256. There are fewer tokens where fewer pairs are frequent enough.
        min_frequency: a pair that appears less often is never merged.
        progress: where to report the bytes read.

    Raises:
        ConfigError: a size below 256, or a frequency below 1.
        InputError: an item that is not a string, or more than `MAX_BYTES` of text.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    if size < 256:
        raise ConfigError(f"A vocabulary of {size} byte-level tokens cannot hold the 256 bytes.")
    if min_frequency < 1:
        raise ConfigError(f"min_frequency is {min_frequency}; it must be at least 1.")
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(META_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(_checked(texts, progress or Silent()), trainer)
    ranks = {to_bytes(token): rank for token, rank in learner.get_vocab(with_added_tokens=False).items()}
    assert [ranks[bytes([byte])] for byte in byte_order()] == list(range(256))
    return ranks


def _checked(texts: Iterable[str], progress: Progress) -> Iterator[str]:
    """The texts in parts, each valid Unicode, with their bytes counted."""
    read = 0
    with progress.task("read", None, "bytes") as task:
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"Text {number} of the corpus is of type {type(text).__name__}, not a string.")
            for part in parts(text):
                part = without_surrogates(part)
                size = len(part.encode())
                read += size
                if read > MAX_BYTES:
                    raise InputError(
                        f"The corpus is larger than {MAX_BYTES:,} bytes, the most whose pairs fit into 32-bit counts.",
                        hint="Train on a sample of it, such as every tenth document.",
                    )
                task.advance(size)
                yield part


def parts(text: str) -> Iterator[str]:
    """Cuts a long text after line breaks that text follows at once: no piece of the split reaches over such a place.

    A text without one stays whole.
    """
    start = 0
    while len(text) - start > _PART_CHARS:
        cut = text.find("\n", start + _PART_CHARS) + 1
        while 0 < cut < len(text) and text[cut].isspace():
            cut = text.find("\n", cut) + 1
        if not 0 < cut < len(text):
            break
        yield text[start:cut]
        start = cut
    yield text[start:]
