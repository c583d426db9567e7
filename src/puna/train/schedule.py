"""Learning-rate schedules, as a factor of the peak rate.

`cosine` is Llama 3.1's own (arXiv 2407.21783, section 3.4.1); `wsd` holds the peak and falls at the end (arXiv
2404.06395), so that the length of a run need not be known at its start; `linear` falls from the end of the warm-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from puna.base.config import require


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """A schedule.

    Attributes:
        kind: the curve after the warm-up.
        warmup_steps: steps of the linear rise. The first has 1 / (warmup_steps + 1): at 0 it would learn nothing.
        decay_share: for wsd, the share of the steps after the warm-up over which the rate falls at the end.
        decay_shape: for wsd, "linear", or "sqrt" for 1 - sqrt(progress).
        final_ratio: where the curve ends, one step after the last, as a share of the peak.
    """

    kind: Literal["cosine", "wsd", "linear", "constant"] = "cosine"
    warmup_steps: int = 0
    decay_share: float = 0.2
    decay_shape: Literal["linear", "sqrt"] = "linear"
    final_ratio: float = 0.0

    def __post_init__(self) -> None:
        require(self.warmup_steps >= 0, f"warmup_steps is {self.warmup_steps}; it must be at least 0.")
        require(0 < self.decay_share <= 1, f"decay_share is {self.decay_share}; it must be above 0 and at most 1.")
        require(0 <= self.final_ratio <= 1, f"final_ratio is {self.final_ratio}; it must be between 0 and 1.")

    def factor(self, step: int, steps: int) -> float:
        """The factor for step `step` of `steps`, both counted from 0."""
        warm = min(1.0, (step + 1) / (self.warmup_steps + 1))
        progress = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        progress = min(1.0, max(0.0, progress))
        return warm * (self.final_ratio + (1 - self.final_ratio) * self._curve(progress))

    def _curve(self, progress: float) -> float:
        if self.kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        if self.kind == "linear":
            return 1 - progress
        if self.kind == "constant":
            return 1.0
        falling = max(0.0, (progress - (1 - self.decay_share)) / self.decay_share)
        return 1 - math.sqrt(falling) if self.decay_shape == "sqrt" else 1 - falling
