"""Choosing the next token from logits.

The order is that of Hugging Face's processors: repetition penalty, temperature, then top-k, top-p and min-p, each on
what the one before left. Log-probabilities that are reported are the model's own, before any of these.

Shapes: B rows, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from puna.core.completion import SamplingParams, TokenLogprob


class Sampler:
    """The sampling state of one row: its parameters, its random numbers, the tokens it has seen."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int]) -> None:
        self.params = params
        self.seen = set(prompt) if params.repetition_penalty != 1 else set()
        # On the CPU, so that a seed gives the same text on every device.
        self.generator = torch.Generator()
        if params.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(params.seed % 2**64)

    def choose(self, logits_V: Tensor) -> int:
        """The next token."""
        params = self.params
        if self.seen:
            logits_V = self._penalized(logits_V)
        if params.temperature == 0:
            token = int(logits_V.argmax())
        else:
            logits_V = logits_V.double().cpu()
            # From the greatest down, so that the smallest temperature cannot overflow.
            token = self._drawn((logits_V - logits_V.max()) / params.temperature)
        if params.repetition_penalty != 1:
            self.seen.add(token)
        return token

    def _penalized(self, logits_V: Tensor) -> Tensor:
        logits_V = logits_V.clone()
        seen = torch.tensor(sorted(self.seen), device=logits_V.device)
        penalty, chosen = self.params.repetition_penalty, logits_V[seen]
        logits_V[seen] = torch.where(chosen > 0, chosen / penalty, chosen * penalty)
        return logits_V

    def _drawn(self, logits_V: Tensor) -> int:
        params = self.params
        logits_V, ids_V = logits_V.sort(descending=True, stable=True)
        if params.top_k:
            logits_V = logits_V[: params.top_k]
        probabilities_V = logits_V.softmax(-1)
        if params.top_p < 1:
            before_V = probabilities_V.cumsum(-1) - probabilities_V
            probabilities_V = probabilities_V[before_V < params.top_p]
        if params.min_p:
            probabilities_V = probabilities_V[probabilities_V >= params.min_p * probabilities_V[0]]
        return int(ids_V[torch.multinomial(probabilities_V, 1, generator=self.generator)])


def logprob_of(logits_V: Tensor, token: int, top: int) -> TokenLogprob:
    """The chosen token's log-probability, and those of the `top` most probable tokens, or of all if there are fewer."""
    logprobs_V = logits_V.float().log_softmax(-1)
    best, ids = logprobs_V.topk(min(top, len(logprobs_V)))
    return TokenLogprob(token, float(logprobs_V[token]), tuple(zip(ids.tolist(), best.tolist(), strict=True)))
