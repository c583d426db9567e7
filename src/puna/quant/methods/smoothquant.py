"""SmoothQuant (arXiv 2211.10438): some of the spread of the inputs' channels moves into the weights.

Inputs have channels that are ten to a hundred times larger than the others, and with one scale for a token these
take all the steps. s_k = max|x_k|^a / max|w_k|^(1-a) divides the inputs; a = 0.5 shares the difficulty evenly.
"""

from __future__ import annotations

import torch

from puna.base.config import require
from puna.quant.calibrate import Stage
from puna.quant.methods.folding import bounded, folds
from puna.quant.methods.method import Method, Work


class SmoothQuant(Method):
    """Args:
    alpha: how much of the spread moves into the weights, from 0 to 1; 0.85 suits Llama 3.
    """

    calibrates = True

    def __init__(self, alpha: float = 0.5) -> None:
        require(0 <= alpha <= 1, f"alpha is {alpha}; it must be from 0 to 1.")
        self.alpha = alpha

    @torch.no_grad()
    def layer(self, work: Work, stage: Stage) -> None:
        seen = None
        for fold in folds(work, stage):
            seen = seen or stage.inputs()
            inputs_C = fold.gather(seen[next(iter(fold.readers))].absmax_K)
            weights_K = torch.stack([reader.weight.float().abs().amax(0) for reader in fold.readers.values()]).amax(0)
            weights_C = fold.gather(weights_K)
            fold.apply(bounded(inputs_C**self.alpha / weights_C ** (1 - self.alpha)))
