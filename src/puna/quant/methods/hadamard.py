"""Hadamard matrices: orthogonal, with all entries of one size, so that a channel's outlier spreads over all channels.

Sylvester's construction doubles an order; Paley's two give orders q + 1 for a prime q = 3 mod 4 and 2 (q + 1) for a
prime q = 1 mod 4. With these come all widths of the Llama family, 53,248 = 104 * 512 among them. A width without a
Hadamard matrix (an odd one, say) is multiplied by a random orthogonal matrix of its odd part instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST_PALEY = 4096


def random_rotation(size: int, seed: int) -> Tensor:
    """An orthogonal matrix, (size, size) float64: a Hadamard matrix with columns of random signs, over its length."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (size,), generator=generator, dtype=torch.float64) * 2 - 1
    doublings, core = 0, size
    while core % 2 == 0 and _paley(core) is None:
        core //= 2
        doublings += 1
    matrix = _paley(core)
    if matrix is None:
        matrix = _orthogonal(core, generator) * core**0.5
    for _ in range(doublings):
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)), 0)
    return matrix * signs / size**0.5


def _orthogonal(size: int, generator: torch.Generator) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()  # uniformly distributed


def _paley(order: int) -> Tensor | None:
    """A Hadamard matrix of `order` by one of Paley's constructions, or None where neither gives one."""
    if order == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    if order > _LARGEST_PALEY or order % 4:
        return None
    q = order - 1
    if q % 4 == 3 and _is_prime(q):
        skew = _bordered(q, -1.0)
        return torch.eye(order, dtype=torch.float64) + skew
    q = order // 2 - 1
    if q % 4 == 1 and _is_prime(q):
        symmetric = _bordered(q, 1.0)
        plus = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
        minus = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
        return torch.kron(symmetric, plus) + torch.kron(torch.eye(q + 1, dtype=torch.float64), minus)
    return None


def _bordered(q: int, corner: float) -> Tensor:
    """Which differences modulo q are squares (1), are not (-1), or are zero, with a border of ones."""
    squares = {i * i % q for i in range(1, q)}
    character = torch.tensor([0.0 if i == 0 else 1.0 if i in squares else -1.0 for i in range(q)], dtype=torch.float64)
    index = torch.arange(q)
    matrix = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    matrix[1:, 1:] = character[(index[:, None] - index[None, :]) % q]
    matrix[0, 1:] = 1.0
    matrix[1:, 0] = corner
    return matrix


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
