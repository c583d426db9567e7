"""Choosing the next token from logits.

The order is that of Hugging Face's processors: repetition penalty, temperature, then top-k, top-p and min-p, each on
what the one before left. Log-probabilities that are reported are the model's own, before any of these.

Shapes: V vocab_size, N tokens that may be chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from puna.base.errors import CheckpointError
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
        """The next token; the logits are left as they are.

        Raises:
            CheckpointError: the logits are no numbers.
        """
        params = self.params
        if torch.isnan(logits_V).any():
            raise CheckpointError(
                "The model's logits are not numbers.",
                hint="Its weights are damaged, or too large for float16: load it with dtype float32.",
            )
        if self.seen:
            logits_V = penalized(logits_V, self.seen, params.repetition_penalty)
        if params.temperature == 0:
            token = int(logits_V.argmax())
        else:
            ids_N, probabilities_N = candidates(logits_V, params)
            token = int(ids_N[torch.multinomial(probabilities_N, 1, generator=self.generator)])
        if params.repetition_penalty != 1:
            self.seen.add(token)
        return token


def penalized(logits_V: Tensor, seen: Collection[int], penalty: float) -> Tensor:
    """Logits in which the tokens already seen are less probable."""
    logits_V = logits_V.clone()
    index = torch.tensor(sorted(seen), device=logits_V.device)
    logits_V[index] = torch.where(logits_V[index] > 0, logits_V[index] / penalty, logits_V[index] * penalty)
    return logits_V


def candidates(logits_V: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """The ids among which a temperature above 0 draws, most probable first, and their weights, both (N,) on the CPU.

    The weights are float64 and need not sum to 1. Of equally probable tokens the one with the lower id comes first.
    """
    logits_V, ids_V = logits_V.double().cpu().sort(descending=True, stable=True)
    if params.top_k:
        logits_V = logits_V[: params.top_k]
    # From the greatest down, so that the smallest temperature cannot overflow.
    weights_N = ((logits_V - logits_V[0]) / params.temperature).softmax(-1)
    if params.top_p < 1:
        before_N = weights_N.cumsum(-1) - weights_N
        weights_N = weights_N[before_N < params.top_p]
    if params.min_p:
        weights_N = weights_N[weights_N >= params.min_p * weights_N[0]]
    return ids_V[: len(weights_N)], weights_N


def logprob_of(logits_V: Tensor, token: int, top: int) -> TokenLogprob:
    """The chosen token's log-probability, and those of the `top` most probable tokens, or of all if there are fewer."""
    logprobs_V = logits_V.float().log_softmax(-1)
    best, ids = logprobs_V.topk(min(top, len(logprobs_V)))
    return TokenLogprob(token, float(logprobs_V[token]), tuple(zip(ids.tolist(), best.tolist(), strict=True)))
