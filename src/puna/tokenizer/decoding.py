"""Text from a stream of ids: a character comes out once all of its bytes are there, and never in halves."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from puna.tokenizer.bpe import ByteLevelBPE


class IncrementalDecoder:
    """Decodes ids as they come; the pieces together are `tokenizer.decode` of all of them.

    Args:
        tokenizer: whose ids.
        skip_special: leave special tokens out.
    """

    def __init__(self, tokenizer: ByteLevelBPE, skip_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: int | Iterable[int]) -> str:
        """The text that `ids` complete; "" while a character lacks bytes."""
        return self._utf8.decode(
            self._tokenizer.decode_bytes([ids] if isinstance(ids, int) else ids, self._skip_special)
        )

    def finish(self) -> str:
        """The end: bytes that wait for the rest of a character come out as U+FFFD. The decoder can be used anew."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest
