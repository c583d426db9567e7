"""What an engine may use: memory for keys and values, tokens of a step, and what it may guess ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from puna.base.config import require


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """An engine's limits.

    Attributes:
        cache_bytes: memory for keys and values; 0 takes what the longest sequence needs four times over, at most a
            quarter of the memory that is free.
        page_tokens: tokens of a page of the cache, the unit in which prompts share their beginnings.
        cache_dtype: of keys and values: "auto" for the model's own, or "int8" or "fp8", which halve the cache.
        max_context: tokens of the longest sequence; 0 for the model's own limit.
        max_running: sequences that are computed together at most.
        step_tokens: tokens of one step while nobody waits for the next token of an answer.
        mixed_step_tokens: tokens of one step while somebody does: how long a new prompt may hold up the others.
        prefix_cache: whether prompts share the pages of equal beginnings.
        draft: what guesses tokens ahead: "ngram" looks them up in the sequence itself; "none" guesses nothing. A
            draft model is given to the engine by itself.
        draft_tokens: tokens guessed at a time, at most.
    """

    cache_bytes: int = 0
    page_tokens: int = 32
    cache_dtype: Literal["auto", "int8", "fp8"] = "auto"
    max_context: int = 0
    max_running: int = 64
    step_tokens: int = 2048
    mixed_step_tokens: int = 256
    prefix_cache: bool = True
    draft: Literal["none", "ngram"] = "none"
    draft_tokens: int = 8

    def __post_init__(self) -> None:
        require(self.cache_bytes >= 0, f"cache_bytes is {self.cache_bytes}; it must be at least 0 (0 chooses).")
        require(self.max_context >= 0, f"max_context is {self.max_context}; it must be at least 0 (0 for the model's).")
        for name in ("page_tokens", "max_running", "step_tokens", "mixed_step_tokens", "draft_tokens"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1.")
