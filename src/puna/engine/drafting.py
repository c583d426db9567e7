"""Guessing tokens ahead, to check several in one step: by looking them up in the text itself, or with a smaller model.

Guesses cost little on a CPU, where a step of a few tokens takes hardly longer than a step of one: both read all weights
once. They never change what is generated (see `sampler`). How far to guess follows from how far the last guesses held.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequence_
from typing import Protocol

from puna.core.completion import SamplingParams
from puna.engine.batch import lay_out
from puna.engine.pages import PagePool
from puna.engine.runner import Runner
from puna.engine.sampler import Sampler
from puna.engine.scheduler import Slice
from puna.engine.sequence import Request, Sequence

_SIZES = (4, 3, 2)  # tokens that must agree, the longest first


class Drafter(Protocol):
    """Guesses what follows."""

    def propose(self, sequences: Sequence_[Sequence], counts: Sequence_[int]) -> list[list[int]]:
        """For each sequence at most so many tokens."""
        ...

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended."""
        ...

    def reset(self) -> None:
        """Nothing that it keeps can be relied on; it begins anew."""
        ...


class Reach:
    """How far to guess for one sequence: twice as far after all guesses held, else one further than they held."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.tokens = min(4, most)

    def learn(self, guessed: int, held: int) -> None:
        if guessed:
            self.tokens = min(self.most, 2 * self.tokens if held == guessed else held + 1)


class NGramDrafter:
    """Guesses that a text goes on as it did the last time its last few tokens stood there (prompt look-up decoding).

    It serves where answers repeat their prompts: edits, quotations, code, structured data.
    """

    def __init__(self) -> None:
        # For each sequence: how many of its tokens are in the index, and where each n-gram last ended.
        self._index: dict[Sequence, tuple[int, dict[tuple[int, ...], int]]] = {}

    def propose(self, sequences: Sequence_[Sequence], counts: Sequence_[int]) -> list[list[int]]:
        return [self._continuation(sequence, count) for sequence, count in zip(sequences, counts, strict=True)]

    def forget(self, sequence: Sequence) -> None:
        self._index.pop(sequence, None)

    def reset(self) -> None:
        self._index.clear()

    def _continuation(self, sequence: Sequence, count: int) -> list[int]:
        tokens = sequence.tokens
        done, places = self._index.get(sequence, (0, {}))
        # An n-gram is entered once a token follows it: the text's own end is no precedent for itself.
        for end in range(max(1, done), len(tokens)):
            for size in _SIZES:
                if end >= size:
                    places[tuple(tokens[end - size : end])] = end
        self._index[sequence] = len(tokens), places
        for size in _SIZES:
            place = places.get(tuple(tokens[-size:]))
            if place is not None and len(tokens) >= size:
                after = tokens[place : place + count]
                return (after * count)[:count]  # where the text ends before that, it is taken to repeat itself
        return []


class ModelDrafter:
    """Guesses with a smaller model of the same tokenizer, whose most probable tokens they are.

    Args:
        runner: the smaller model and its cache.
        pool: the pages of that cache. A sequence for which none are left gets no guesses.
        step_tokens: tokens that it computes at a time, at most, when it must catch up with a long prompt.
    """

    def __init__(self, runner: Runner, pool: PagePool, step_tokens: int) -> None:
        self.runner = runner
        self.pool = pool
        self.step_tokens = step_tokens
        self._twins: dict[Sequence, Sequence] = {}

    def propose(self, sequences: Sequence_[Sequence], counts: Sequence_[int]) -> list[list[int]]:
        wanted = {self._twin(s): n for s, n in zip(sequences, counts, strict=True) if n > 0}
        guesses: dict[Sequence, list[int]] = {twin: [] for twin in wanted}
        parts, budget = [], self.step_tokens
        for twin in sorted(wanted, key=lambda twin: twin.pending):  # who must catch up gets what is left
            tokens = min(twin.pending, budget)
            if tokens and self._has_room(twin, twin.computed + tokens):
                parts.append(Slice(twin, twin.computed, twin.computed + tokens))
                budget -= tokens
        while parts:
            guessed = self._run(parts)
            for twin, token in guessed:
                twin.tokens.append(token)
                guesses[twin].append(token)
            parts = [
                Slice(twin, twin.computed, twin.computed + 1)
                for twin, _ in guessed
                if len(guesses[twin]) < wanted[twin] and self._has_room(twin, twin.computed + 1)
            ]
        return [guesses.get(self._twins[s], []) if s in self._twins else [] for s in sequences]

    def forget(self, sequence: Sequence) -> None:
        if twin := self._twins.pop(sequence, None):
            self.pool.release(twin.pages)

    def reset(self) -> None:
        self._twins.clear()
        self.pool.reset()

    def _run(self, parts: Sequence_[Slice]) -> list[tuple[Sequence, int]]:
        """The most probable next token of each twin whose last token is among the parts."""
        batch = lay_out(parts, self.runner.cache.page_tokens, self.runner.model.embed_tokens.weight.device)
        logits = self.runner.run(batch)
        for part in parts:
            part.sequence.computed = part.end
        return [
            (part.sequence, int(rows[-1].argmax()))
            for part, rows in zip(batch.slices, logits, strict=True)
            if part.samples
        ]

    def _twin(self, sequence: Sequence) -> Sequence:
        """The sequence as the smaller model knows it, brought up to date."""
        twin = self._twins.get(sequence)
        if twin is None:
            request = Request(sequence.request.prompt, SamplingParams())
            limit = min(sequence.limit, self.runner.model.config.max_position_embeddings)
            twin = Sequence(sequence.number, request, limit, Sampler(request.params, ()))
            self._twins[sequence] = twin
        same = min(twin.computed, len(sequence.tokens) - 1)
        while twin.tokens[:same] != sequence.tokens[:same]:
            same -= 1
        twin.tokens, twin.computed = list(sequence.tokens), same
        return twin

    def _has_room(self, twin: Sequence, tokens: int) -> bool:
        """Whether the smaller model can compute so many tokens; takes the pages for them."""
        if tokens > twin.limit:
            return False
        pages = self.pool.take(max(0, -(-tokens // self.runner.cache.page_tokens) - len(twin.pages)))
        if pages is None:
            return False
        twin.pages += pages
        return True
