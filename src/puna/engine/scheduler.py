"""Which tokens of which sequences are computed in the next step.

There is no prefill phase and no decode phase: a sequence has tokens whose keys and values are not in the cache yet, one
after an answer's last token, thousands of a new prompt, and each step takes some of them under one budget. Answers
that wait for a token go first, so that a long prompt cannot hold them up by more than the step's share of it; the rest
of the budget goes to running prompts and then to waiting ones, by priority, then by whose tenant has had the least,
then by arrival. A sequence that runs out of pages takes those of the least urgent one, which computes its tokens again
later.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from puna.engine.config import EngineConfig
from puna.engine.pages import PagePool, page_hashes
from puna.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Slice:
    """A sequence's part in a step: tokens and drafts [start, end) of it.

    Attributes:
        sequence: whose.
        start: the first token to compute.
        end: one after the last; beyond `len(sequence.tokens)` they are drafts.
    """

    sequence: Sequence
    start: int
    end: int

    @property
    def count(self) -> int:
        return self.end - self.start

    @property
    def samples(self) -> bool:
        """Whether the last known token is among them, so that a new one is chosen."""
        return self.end >= len(self.sequence.tokens)


class Scheduler:
    """Sequences that wait and sequences that run.

    Args:
        pool: pages of the cache.
        config: the limits.
    """

    def __init__(self, pool: PagePool, config: EngineConfig) -> None:
        self.pool = pool
        self.config = config
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._served: Counter[str] = Counter()

    def add(self, sequence: Sequence) -> None:
        """A tenant that was away does not claim what it did not ask for: it starts level with the least served."""
        tenant = sequence.request.tenant
        present = {s.request.tenant for s in (*self.waiting, *self.running)}
        if not present:
            self._served.clear()
        elif tenant not in present:
            self._served[tenant] = max(self._served[tenant], min(self._served[t] for t in present))
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """A sequence that has ended or was given up."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._give_back(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def preempt(self, sequence: Sequence) -> None:
        """A running sequence gives its pages back, and waits to compute its tokens again."""
        self.waiting.append(sequence)
        self.running.remove(sequence)
        self._give_back(sequence)
        sequence.preemptions += 1

    def reset(self) -> None:
        """All wait, and no page is held or known: for when a step broke off anywhere."""
        self.waiting = list(dict.fromkeys((*self.waiting, *self.running)))
        self.pool.reset()
        for sequence in self.waiting:
            sequence.pages, sequence.computed, sequence.drafts = [], 0, []
            sequence.preemptions += sequence in self.running
        self.running = []

    def plan(self) -> list[Slice]:
        """The next step: at least one slice while there is anything to do."""
        slices: dict[Sequence, Slice] = {}
        budget = self.config.step_tokens
        if any(sequence.decoding for sequence in self.running):
            budget = self.config.mixed_step_tokens
        for sequence in sorted(self.running, key=lambda s: (not s.decoding, s.urgency)):
            # A sequence that was preempted for one before it is not running any more.
            if sequence in self.running:
                # Every answer gets its token, even where more run than the budget has tokens.
                count = self._share(sequence, max(budget, 1) if sequence.decoding else budget)
                if count and self._grow(sequence, sequence.computed + count, slices):
                    slices[sequence] = Slice(sequence, sequence.computed, sequence.computed + count)
                    budget = max(0, budget - count)
        for part in slices.values():
            self._name_pages(part)
        while self.waiting and budget > 0 and len(self.running) < self.config.max_running:
            sequence = min(self.waiting, key=self._turn)
            if not self._admit(sequence, budget):
                break
            count = self._share(sequence, budget)
            slices[sequence] = Slice(sequence, sequence.computed, sequence.computed + count)
            # At once: the next to be admitted may take the same pages, since within each layer all new keys and
            # values are stored before anything attends to them.
            self._name_pages(slices[sequence])
            budget -= count
        for part in slices.values():
            self._served[part.sequence.request.tenant] += part.count
        return list(slices.values())

    def _turn(self, sequence: Sequence) -> tuple[int, int, int]:
        priority, number = sequence.urgency
        return priority, self._served[sequence.request.tenant], number

    def _share(self, sequence: Sequence, budget: int) -> int:
        """How many of its tokens fit the budget; drafts only where they follow the last token at once."""
        if sequence.request.params.prompt_logprobs and not sequence.decoding:
            budget = min(budget, self.config.mixed_step_tokens)  # all its tokens' logits are held at a time
        if sequence.pending > budget:
            return budget
        return min(sequence.pending + len(sequence.drafts), max(budget, sequence.pending))

    def _grow(self, sequence: Sequence, tokens: int, slices: dict[Sequence, Slice]) -> bool:
        """Gets pages for its first `tokens` tokens, from the least urgent sequence if need be."""
        while not self._extend(sequence, tokens):
            victim = max(self.running, key=lambda s: s.urgency)
            slices.pop(victim, None)
            self.preempt(victim)
            if victim is sequence:
                return False
        return True

    def _extend(self, sequence: Sequence, tokens: int) -> bool:
        missing = -(-tokens // self.config.page_tokens) - len(sequence.pages)
        pages = self.pool.take(max(0, missing))
        if pages is None:
            return False
        sequence.pages += pages
        return True

    def _admit(self, sequence: Sequence, budget: int) -> bool:
        """Lets a waiting sequence run, if its next tokens find room and a page is left for each that runs already."""
        size = self.config.page_tokens
        found: list[int] = []
        if self.config.prefix_cache and not sequence.request.params.prompt_logprobs:
            sequence.hashes = page_hashes(sequence.tokens, size, sequence.salt, sequence.hashes)
            # At least one token is computed, for its logits.
            found = self.pool.match(sequence.hashes[: (len(sequence.tokens) - 1) // size])
        computed = len(found) * size
        needed = -(-min(len(sequence.tokens), computed + budget) // size) - len(found)
        if self.pool.room_beside(found) < needed + len(self.running):
            return False
        self.pool.hold(found)
        sequence.pages, sequence.computed = found, computed
        self._extend(sequence, min(len(sequence.tokens), computed + budget))
        if not sequence.preemptions:
            sequence.cached_tokens = computed
        self.running.append(sequence)
        self.waiting.remove(sequence)
        return True

    def _give_back(self, sequence: Sequence) -> None:
        self.pool.release(sequence.pages)
        sequence.pages, sequence.computed, sequence.drafts = [], 0, []

    def _name_pages(self, part: Slice) -> None:
        """Makes the pages known that this step fills."""
        if not self.config.prefix_cache:
            return
        sequence, size = part.sequence, self.config.page_tokens
        full = min(part.end, len(sequence.tokens)) // size
        if full > len(sequence.hashes):
            sequence.hashes = page_hashes(sequence.tokens, size, sequence.salt, sequence.hashes)
        for place in range(part.start // size, full):
            self.pool.name(sequence.pages[place], sequence.hashes[place])
