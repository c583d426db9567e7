"""Choosing the next tokens from logits.

The order is that of Hugging Face's processors: bias and penalties, temperature, then top-k, top-p and min-p, each on
what the one before left. Log-probabilities that are reported are the model's own, before any of these.

Guesses are checked by drawing as if there were none and going on while the draw is the guess. For guesses that are no
draws themselves this is rejection sampling (arXiv 2211.17192, section 2.3, where the draft is certain): the text is
distributed as without them, and with a seed it is the same text.

Shapes: V vocab_size, N tokens that may be chosen, C places in a row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from puna.base.errors import CheckpointError
from puna.core.completion import SamplingParams, TokenLogprob

_FIRST_LOOK = 256  # tokens sorted at first: with usual settings no more can be chosen


class Sampler:
    """The sampling state of one sequence: its parameters, its random numbers, the tokens it has seen.

    Args:
        params: how to sample.
        prompt: token ids.
        number: which of several answers; each has a seed of its own.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int], number: int = 0) -> None:
        self.params = params
        self.seen = set(prompt) if params.repetition_penalty != 1 else set()
        self.said: Counter[int] = Counter()
        # On the CPU, so that a seed gives the same text on every device.
        self.generator = torch.Generator()
        if params.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed((params.seed + number) % 2**64)

    def choose(self, logits_V: Tensor) -> int:
        """The next token; the logits are left as they are.

        Raises:
            CheckpointError: the logits are no numbers.
        """
        params = self.params
        if not math.isfinite(logits_V.max()):  # the greatest is NaN where any is
            raise CheckpointError(
                "The model's logits are not numbers.",
                hint="Its weights are damaged, or too large for float16: load it with dtype float32.",
            )
        logits_V = self._weighed(logits_V)
        if params.temperature == 0:
            token = int(logits_V.argmax())
        else:
            ids_N, weights_N = candidates(logits_V, params)
            token = int(ids_N[torch.multinomial(weights_N, 1, generator=self.generator)])
        self.note(token)
        return token

    def note(self, token: int) -> None:
        """Takes a token as said."""
        if self.params.repetition_penalty != 1:
            self.seen.add(token)
        if self.params.presence_penalty or self.params.frequency_penalty:
            self.said[token] += 1

    def _weighed(self, logits_V: Tensor) -> Tensor:
        """Logits with bias and penalties."""
        params = self.params
        if params.logit_bias:
            logits_V = _added(logits_V, params.logit_bias)
        if self.seen:
            logits_V = penalized(logits_V, self.seen, params.repetition_penalty)
        if self.said:
            penalties = {t: -params.presence_penalty - n * params.frequency_penalty for t, n in self.said.items()}
            logits_V = _added(logits_V, penalties)
        return logits_V


def _added(logits_V: Tensor, amounts: Mapping[int, float]) -> Tensor:
    """Logits with an amount added to some; ids that the vocabulary does not have are left out."""
    known = {id: amounts[id] for id in amounts if 0 <= id < logits_V.shape[0]}
    logits_V = logits_V.clone()
    index = torch.tensor(list(known), dtype=torch.int64, device=logits_V.device)
    logits_V[index] += torch.tensor(list(known.values()), dtype=logits_V.dtype, device=logits_V.device)
    return logits_V


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
    logits_V = logits_V.double().cpu()
    logits_V = (logits_V - logits_V.max()) / params.temperature  # so that the smallest temperature cannot overflow
    if params.top_k:
        logits_N, ids_N = _largest(logits_V, params.top_k)
        weights_N = logits_N.softmax(-1)
    else:
        logits_N, ids_N = _nucleus(logits_V, params)
        weights_N = (logits_N - logits_V.logsumexp(-1)).exp()
    if params.top_p < 1:
        before_N = weights_N.cumsum(-1) - weights_N
        weights_N = weights_N[before_N < params.top_p]
    if params.min_p:
        weights_N = weights_N[weights_N >= params.min_p * weights_N[0]]
    return ids_N[: len(weights_N)], weights_N


def _largest(logits_V: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The greatest logits in order, the lower id first among equals, without sorting the others."""
    if count >= logits_V.shape[0]:
        return logits_V.sort(descending=True, stable=True)
    # `topk` takes any of several equal ones, so the last place is filled again, in the order of ids.
    least = logits_V.topk(count).values[-1]
    above = (logits_V > least).nonzero().squeeze(1)
    equal = (logits_V == least).nonzero().squeeze(1)[: count - len(above)]
    ids = torch.cat([above, equal])
    order = logits_V[ids].sort(descending=True, stable=True)
    return order.values, ids[order.indices]


def _nucleus(logits_V: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Enough of the greatest logits, in order, for top-p and min-p to cut where they would cut all of them."""
    total, count = logits_V.logsumexp(-1), _FIRST_LOOK
    while count < logits_V.shape[0]:
        logits_N, ids_N = _largest(logits_V, count)
        covered = float((logits_N - total).exp().sum()) >= params.top_p and params.top_p < 1
        if covered or (params.min_p and float((logits_N[-1] - logits_N[0]).exp()) < params.min_p):
            return logits_N, ids_N
        count *= 8
    return logits_V.sort(descending=True, stable=True)


def logprob_of(logits_V: Tensor, token: int, top: int) -> TokenLogprob:
    """The chosen token's log-probability, and those of the `top` most probable tokens, or of all if there are fewer."""
    logprobs_V = logits_V.float().log_softmax(-1)
    best, ids = logprobs_V.topk(min(top, len(logprobs_V)))
    return TokenLogprob(token, float(logprobs_V[token]), tuple(zip(ids.tolist(), best.tolist(), strict=True)))
