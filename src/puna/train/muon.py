"""Muon: momentum whose update is orthogonalised (https://kellerjordan.github.io/posts/muon).

Each weight matrix moves by the nearest semi-orthogonal matrix to its Nesterov momentum, found by a few
Newton-Schulz steps, so that every direction of the matrix learns at the same pace. The coefficients are those of the
Polar Express (arXiv 2505.16932). Matrices of one shape are orthogonalised together in one batched product: a small
model has many small matrices, and one by one they would cost more than they compute.

Embeddings, the output matrix and vectors are not for Muon; `optimizer` gives them to AdamW.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Quintic coefficients of the successive steps (Polar Express, five steps, safety factor 2e-2, cushion 2).
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413261, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalize(
    g_NRC: Tensor, coefficients: Iterable[tuple[float, float, float]] = POLAR_EXPRESS, margin: float = 1.02
) -> Tensor:
    """The nearest semi-orthogonal matrices, approximately: singular values come out between 0.7 and 1.2.

    Args:
        g_NRC: N matrices of R rows and C columns.
        coefficients: (a, b, c) of each step X <- a X + (b A + c A A) X with A = X X^T.
        margin: divides the Frobenius norm, so that the largest singular value is safely below 1.

    Returns:
        (N, R, C) in the dtype of `g_NRC`; the steps run in bf16.
    """
    x = g_NRC.bfloat16()
    wide = x.shape[-2] <= x.shape[-1]
    if not wide:
        x = x.mT
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) * margin + 1e-7).to(x.dtype)
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(g_NRC.dtype)


class Muon(torch.optim.Optimizer):
    """Muon over matrices.

    Args:
        params: 2-D parameters (or groups of them).
        lr: step size. An update has singular values near 1, times sqrt(max(1, rows / columns)).
        momentum: of the exponential average of gradients, with Nesterov's look-ahead.
        weight_decay: decoupled, as in AdamW.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"Muon takes matrices; a parameter has shape {tuple(parameter.shape)}.")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            same_shape = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    same_shape[parameter.shape].append(parameter)
            for parameters in same_shape.values():
                self._step_together(parameters, **{key: group[key] for key in ("lr", "momentum", "weight_decay")})
        return loss

    def _step_together(self, parameters: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        looked_ahead = []
        for parameter in parameters:
            state, gradient = self.state[parameter], parameter.grad
            assert gradient is not None
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            buffer = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
            looked_ahead.append(gradient.lerp(buffer, momentum))
        updates = orthogonalize(torch.stack(looked_ahead))
        rows, columns = parameters[0].shape
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - lr * weight_decay)
            parameter.add_(update, alpha=-lr * max(1.0, rows / columns) ** 0.5)
