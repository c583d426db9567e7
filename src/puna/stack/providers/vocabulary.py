"""What a provider that has its models' tokenizers at hand can do besides: text to ids and back, and tokens by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from puna.stack.errors import ApiError
from puna.stack.providers.provider import Provider


class Vocabulary(Protocol):
    """Text and token ids, by a model's tokenizer."""

    async def encode(self, model: str, text: str, *, bos: bool = False, special: bool = False) -> list[int]:
        """Ids of a text.

        Args:
            model: as the provider calls it.
            text: to be encoded.
            bos: put the start token before it.
            special: read special tokens where their names stand; else a name is text like any other.
        """
        ...

    async def decode(self, model: str, ids: Sequence[int]) -> str:
        """The text of ids.

        Raises:
            InputError: an id that the model does not have.
        """
        ...

    async def token_bytes(self, model: str, ids: Sequence[int]) -> list[bytes]: ...

    async def special_tokens(self, model: str) -> Mapping[str, int]:
        """Ids of special tokens by their names."""
        ...


def vocabulary_of(provider: Provider, purpose: str) -> Vocabulary:
    """A provider's vocabulary.

    Raises:
        ApiError: 501 where it has none.
    """
    if not all(hasattr(provider, name) for name in ("encode", "decode", "token_bytes", "special_tokens")):
        raise ApiError(
            501,
            f"{purpose} needs the model's tokenizer, which the provider {provider.id!r} ({provider.type}) has not.",
            param="model",
            code="not_implemented",
        )
    return cast(Any, provider)
