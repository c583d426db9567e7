"""The engine: requests in, tokens out, one step of all of them at a time.

    add -> scheduler.plan -> batch.lay_out -> runner.run -> sampler.choose -> on_token -> drafter.propose -> ...

A step is short and whole: between two steps requests come and go. The engine knows token ids alone; texts and messages
are its callers' (`local`), threads and event loops too (`serving`).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from puna.base.device import free_memory
from puna.base.errors import ConfigError, InputError, ResourceError
from puna.base.files import format_bytes
from puna.core.completion import StopReason
from puna.engine.adapters import Adapters
from puna.engine.batch import lay_out
from puna.engine.config import EngineConfig
from puna.engine.drafting import Drafter, ModelDrafter, NGramDrafter, Reach
from puna.engine.paged_cache import PagedCache, page_bytes, stored_dtype
from puna.engine.pages import PagePool
from puna.engine.runner import Runner
from puna.engine.sampler import Sampler, logprob_of
from puna.engine.scheduler import Scheduler, Slice
from puna.engine.sequence import OnToken, Request, Sequence
from puna.model.transformer import Transformer

if TYPE_CHECKING:
    from puna.engine.grammar import Matcher

_SHARE = 4  # of the free memory, one part in so many is the cache's
_log = logging.getLogger(__name__)


class Engine:
    """Generates for many requests together.

    Any thread may call it. Whoever calls `step` steps for all; `add` and `cancel` never wait for a step.

    Args:
        model: in eval mode.
        stop_ids: token id -> why generation ends there.
        vocab_size: the ids below it are generated.
        config: the limits.
        draft: a smaller model with the same tokenizer that guesses ahead.

    Raises:
        ResourceError: a cache that does not hold one sequence of the length asked for.
        ConfigError: a smaller model that does not know all tokens.
    """

    def __init__(
        self,
        model: Transformer,
        stop_ids: Mapping[int, StopReason],
        vocab_size: int,
        config: EngineConfig | None = None,
        draft: Transformer | None = None,
    ) -> None:
        self.model = model
        self.stop_ids = stop_ids
        self.vocab_size = vocab_size
        self.config = config or EngineConfig()
        self.device = model.embed_tokens.weight.device
        self.adapters = Adapters(model)
        self.lock = threading.RLock()
        self._numbers = count()
        self._arrivals: deque[Sequence] = deque()
        self._departures: deque[Sequence] = deque()
        self._reach: dict[Sequence, Reach] = {}
        self.max_context, pages = self._budget([model] if draft is None else [model, draft])
        self.pool = PagePool(pages)
        self.scheduler = Scheduler(self.pool, self.config)
        self.runner = Runner(model, self._new_cache(model, pages), vocab_size, self.adapters)
        self.drafter = self._new_drafter(draft)

    def add(
        self, request: Request, on_token: OnToken | None = None, matcher: Matcher | None = None, answer: int = 0
    ) -> Sequence:
        """Takes a request; its sequence goes on in the coming steps.

        Args:
            request: what is asked.
            on_token: told of each new token, within `step`.
            matcher: the grammar that the answer is held to.
            answer: which of several answers to one request, for its seed.

        Raises:
            InputError: a prompt without tokens, without room for one more, or with an id that the model does not have.
            ConfigError: an adapter that is not loaded.
        """
        self._check(request.prompt)
        limit = min(self.max_context, len(request.prompt) + request.params.max_tokens)
        adapter = self.adapters.find(request.adapter)
        sampler = Sampler(request.params, request.prompt, answer)
        tokens = list(request.prompt)
        sequence = Sequence(next(self._numbers), request, limit, sampler, matcher, adapter, on_token, tokens)
        self._arrivals.append(sequence)
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        """Ends a sequence; what it holds is free at once, or with the end of the step that is under way.

        One that has ended already stays as it is.
        """
        if sequence.ended:
            return
        sequence.stop_reason = "cancelled"
        self._departures.append(sequence)
        if self.lock.acquire(blocking=False):
            try:
                with self._whole():
                    self._settle()
            finally:
                self.lock.release()

    def cancel_all(self) -> None:
        """Ends every sequence."""
        with self.lock, self._whole():
            self._settle()
            for sequence in (*self.scheduler.running, *self.scheduler.waiting):
                self.cancel(sequence)

    @property
    def busy(self) -> bool:
        return bool(self._arrivals or self._departures or self.scheduler.running or self.scheduler.waiting)

    def step(self) -> list[Sequence]:
        """Computes one step; returns the sequences that have gained tokens or ended."""
        with self.lock, self._whole():
            self._settle()
            plan = self.scheduler.plan()
            if not plan:
                return []
            self.wake()
            moved = self._compute(plan)
            self._draft([sequence for sequence in moved if not sequence.ended])
            self._settle()
            return moved

    def sleep(self) -> None:
        """Gives the cache's memory back until the next `wake`; nothing may be running.

        Weights that are mapped from files are the system's to take whenever it needs their memory.
        """
        with self.lock:
            with self._whole():
                self._settle()
            if self.busy:
                raise ResourceError("The engine is at work.", hint="Let it finish, or cancel what it runs.")
            self.pool.forget_all()
            for runner in self._runners:
                runner.cache = self._new_cache(runner.model, 0)

    def wake(self) -> None:
        """Takes the memory again after `sleep`; the first step does so by itself."""
        with self.lock:
            for runner in self._runners:
                if not runner.cache.pages:
                    runner.cache = self._new_cache(runner.model, self.pool.count)

    @property
    def _runners(self) -> list[Runner]:
        return [self.runner, *([self.drafter.runner] if isinstance(self.drafter, ModelDrafter) else [])]

    def _budget(self, models: list[Transformer]) -> tuple[int, int]:
        """Tokens of the longest sequence, and pages of the cache, which each model has its part of."""
        config, size = self.config, self.config.page_tokens
        longest = models[0].config.max_position_embeddings
        longest = min(config.max_context or longest, longest)
        of_page = sum(page_bytes(model.config, size, self._cache_dtype(model)) for model in models)
        needed = -(-longest // size)
        if config.cache_bytes:
            pages = config.cache_bytes // of_page
        else:
            pages = min(free_memory(self.device) // _SHARE // of_page, needed * config.max_running)
            if not config.max_context:
                longest = max(1, min(longest, pages * size))
                needed = -(-longest // size)
        if pages < needed or pages < 1:
            raise ResourceError(
                f"The cache of {format_bytes(pages * of_page)} holds {pages * size:,} tokens; a sequence of "
                f"{longest:,} needs {format_bytes(max(needed, 1) * of_page)}.",
                hint=f"Raise cache_bytes, lower max_context to {pages * size}, or set cache_dtype to int8.",
            )
        return longest, pages

    def _cache_dtype(self, model: Transformer) -> torch.dtype:
        return stored_dtype(self.config.cache_dtype, model.embed_tokens.weight.dtype)

    def _new_cache(self, model: Transformer, pages: int) -> PagedCache:
        return PagedCache(model.config, pages, self.config.page_tokens, self._cache_dtype(model), self.device)

    def _new_drafter(self, draft: Transformer | None) -> Drafter | None:
        if draft is not None:
            if draft.config.vocab_size < self.vocab_size:
                raise ConfigError(
                    f"The draft model knows {draft.config.vocab_size} tokens; the model {self.vocab_size}.",
                    hint="Both must have the same tokenizer.",
                )
            cache = self._new_cache(draft, self.pool.count)
            runner = Runner(draft, cache, self.vocab_size, Adapters(draft))
            return ModelDrafter(runner, PagePool(self.pool.count), self.config.mixed_step_tokens)
        return NGramDrafter() if self.config.draft == "ngram" else None

    def _check(self, prompt: tuple[int, ...]) -> None:
        if not prompt:
            raise InputError("The prompt has no tokens.", hint="Give at least one character, or the start token.")
        if len(prompt) >= self.max_context:
            raise InputError(
                f"The prompt has {len(prompt)} tokens; the model's context holds {self.max_context}.",
                hint=f"Shorten it to at most {self.max_context - 1} tokens.",
            )
        if not 0 <= min(prompt) <= max(prompt) < self.model.config.vocab_size:
            raise InputError(
                f"The prompt has ids from {min(prompt)} to {max(prompt)}; the model's are 0 to "
                f"{self.model.config.vocab_size - 1}.",
                hint="Encode it with the model's own tokenizer.",
            )

    def _compute(self, plan: list[Slice]) -> list[Sequence]:
        """Runs a plan; returns the sequences that have gained tokens or ended."""
        batch = lay_out(plan, self.config.page_tokens, self.device)
        try:
            logits = self.runner.run(batch)
        except Exception:
            return self._compute_one_by_one(plan)
        return [part.sequence for part, rows in zip(batch.slices, logits, strict=True) if self._advance(part, rows)]

    def _compute_one_by_one(self, plan: list[Slice]) -> list[Sequence]:
        """A plan that failed, each sequence for itself: those fail whose fault it is, and the others go on."""
        self.pool.forget_all()
        moved = []
        unsure: set[int] = set()  # pages that a sequence was to fill which has failed
        for part in plan:
            sequence = part.sequence
            if not sequence.ended and not unsure.isdisjoint(sequence.pages):
                self.scheduler.preempt(sequence)
                continue
            rows = torch.empty(0)
            try:
                if not sequence.ended:
                    (rows,) = self.runner.run(lay_out([part], self.config.page_tokens, self.device))
            except Exception as error:
                unsure.update(sequence.pages)
                sequence.error = error
                self._drop(sequence)
            if self._advance(part, rows):
                moved.append(sequence)
        return moved

    def _advance(self, part: Slice, logits_WV: Tensor) -> bool:
        """Takes a computed slice in; returns whether its sequence has gained tokens or ended."""
        sequence, samples = part.sequence, part.samples
        if sequence.ended:  # it was cancelled since the step began
            return True
        known = len(sequence.tokens)
        sequence.computed = min(part.end, known)
        try:
            if sequence.request.params.prompt_logprobs and part.start < len(sequence.request.prompt):
                logits_WV = self._prompt_logprobs(part, logits_WV)
            if samples:
                drafts, sequence.drafts = sequence.drafts[: part.end - known], []
                self._extend(sequence, logits_WV, drafts)
        except Exception as error:  # whatever its grammar or its listener meets is its own, and the others go on
            sequence.error = error
        except BaseException:
            sequence.error = ResourceError("The request was interrupted.", hint="Ask again.")
            raise
        if sequence.ended:
            self._drop(sequence)
        return samples or sequence.ended

    def _extend(self, sequence: Sequence, logits_WV: Tensor, drafts: list[int]) -> None:
        """Chooses the next token, and the ones after it for as long as the guesses hold."""
        held = 0
        for place, logits_V in enumerate(logits_WV):
            token = self._choose(sequence, logits_V)
            self._append(sequence, token)
            if sequence.ended or place >= len(drafts) or token != drafts[place]:
                break
            held += 1
        sequence.computed += held
        if sequence in self._reach:
            self._reach[sequence].learn(len(drafts), held)
        if sequence.matcher and not sequence.ended:
            self._append_forced(sequence, sequence.matcher)

    def _choose(self, sequence: Sequence, logits_V: Tensor) -> int:
        allowed_V = sequence.matcher.restrict(logits_V) if sequence.matcher else logits_V
        token = sequence.sampler.choose(allowed_V)
        if sequence.request.params.logprobs is not None:
            sequence.logprobs.append(logprob_of(logits_V, token, sequence.request.params.logprobs))
        if sequence.matcher:
            sequence.matcher.take(token)
        return token

    def _append(self, sequence: Sequence, token: int) -> None:
        sequence.tokens.append(token)
        heard = sequence.on_token(token) if sequence.on_token else None
        if token in self.stop_ids:
            sequence.stop_reason = self.stop_ids[token]
        elif heard:
            sequence.stop_reason = heard
        elif sequence.matcher and sequence.matcher.ended:
            sequence.stop_reason = "end_of_turn"
        elif len(sequence.tokens) >= sequence.limit:
            sequence.stop_reason = "length"

    def _append_forced(self, sequence: Sequence, matcher: Matcher) -> None:
        """Appends what must follow, without a step for each; their log-probabilities would need one."""
        if sequence.request.params.logprobs is not None:
            return
        for token in matcher.forced():
            matcher.take(token)
            sequence.sampler.note(token)
            self._append(sequence, token)
            if sequence.ended:
                return

    def _prompt_logprobs(self, part: Slice, logits_WV: Tensor) -> Tensor:
        """Keeps the log-probabilities of the prompt's next tokens; returns the logits that are sampled from."""
        kept = part.sequence.prompt_logprobs
        tokens = part.sequence.request.prompt[len(kept) + 1 : part.end + 1]
        rows_WV = logits_WV[len(kept) - part.start :][: len(tokens)]
        targets = torch.tensor(tokens, dtype=torch.int64, device=logits_WV.device)
        kept += rows_WV.log_softmax(-1).gather(1, targets[:, None]).squeeze(1).tolist()
        return logits_WV[-1:] if part.samples else logits_WV[:0]

    def _draft(self, sequences: list[Sequence]) -> None:
        """Guesses for the next step, as many as each has room for. Who cannot guess does not harm the answers."""
        if self.drafter is None or not sequences:
            return
        counts = []
        for sequence in sequences:
            reach = self._reach.setdefault(sequence, Reach(self.config.draft_tokens))
            counts.append(max(0, min(reach.tokens, sequence.limit - len(sequence.tokens) - 1)))
        try:
            proposed = self.drafter.propose(sequences, counts)
        except Exception:
            _log.exception("Guessing ahead has failed, and is switched off.")
            self.drafter = None
            return
        for sequence, drafts in zip(sequences, proposed, strict=True):
            sequence.drafts = drafts

    def _settle(self) -> None:
        """Lets those in who have come, and out who were cancelled."""
        while self._departures:
            self._drop(self._departures[0])
            self._departures.popleft()
        while self._arrivals:
            if not self._arrivals[0].ended:
                self.scheduler.add(self._arrivals[0])
            self._arrivals.popleft()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """An interruption may come anywhere: then nothing half done is believed, and all is computed again."""
        try:
            yield
        except BaseException:
            self.scheduler.reset()
            if self.drafter:
                self.drafter.reset()
            for sequence in [s for s in self.scheduler.waiting if s.ended]:
                self._drop(sequence)
            if self._arrivals and self._arrivals[0] in self.scheduler.waiting:
                self._arrivals.popleft()
            raise

    def _drop(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        self._reach.pop(sequence, None)
        if self.drafter:
            self.drafter.forget(sequence)
