"""Mixed precision by measurement: which module suffers how much from which format, and the best plan for a budget.

Each module is rounded alone, in each format, and the divergence of the model's predictions from the original's is
measured on the user's texts. With all else float, these divergences nearly add up. For each module the formats on the
lower convex hull of (bytes, divergence) are kept, and all steps from one to the next are sorted by what a saved byte
costs: walking along them gives the best plan for every size, to within one step (the classic greedy solution of the
multiple-choice knapsack problem, which is optimal for its continuous form). A budget of quality is met by measuring
whole plans along that path.

Formats whose inputs have one scale for all are left out; their scales belong to a calibration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from puna.base.config import require
from puna.base.errors import ConfigError
from puna.base.files import format_bytes
from puna.base.progress import Progress, Silent
from puna.model.transformer import Transformer
from puna.quant.calibrate import Calibration, Row, context, embedded
from puna.quant.compare import Divergence, Head, diverge, head_of, targets
from puna.quant.formats import named_format
from puna.quant.linear import QuantLinear
from puna.quant.plan import AUTO, HEAD, QuantPlan, linear_shapes

DEFAULT_FORMATS = ("int8", "fp8", "int4-g32", "int4-g128")


@dataclass(frozen=True, slots=True)
class Option:
    """One format for one module.

    Attributes:
        format: its name; "bf16" is always the first.
        bytes: stored.
        kl: divergence from the original, nats a token, when this module alone has the format.
    """

    format: str
    bytes: int
    kl: float


Sensitivity = Mapping[str, Sequence[Option]]  # module -> its options


@dataclass(frozen=True, slots=True)
class Step:
    """A module goes from one format to a smaller one."""

    module: str
    format: str
    saved: int
    price: float  # nats a byte


# Measuring ------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def measure(
    model: Transformer,
    texts: Calibration,
    formats: Sequence[str] = DEFAULT_FORMATS,
    progress: Progress | None = None,
) -> dict[str, list[Option]]:
    """The divergence that each module causes in each format, alone.

    Only the layers from the changed one on are run: the hidden states before each layer are kept.

    Args:
        model: a float model; as it was when this ends.
        texts: a few thousand tokens are enough.
        formats: to choose among, beside bf16; those that do not fit a module are left out for it.
        progress: who watches.

    Raises:
        ConfigError: an unknown format, or a static one.
    """
    for name in formats:
        require(named_format(name).activations != "tensor", f"{name} has static scales and cannot be measured alone.")
    texts.check(model)
    sizes = dict(linear_shapes(model.config))
    if model.config.tie_word_embeddings:
        del sizes[HEAD]  # quantising it adds bytes, since the embedding stays
    found = {name: [Option("bf16", 2 * size[0] * size[1], 0.0)] for name, size in sizes.items()}
    trial = _Trial(model, texts)
    with (progress or Silent()).task("sensitivity", len(sizes) * len(formats), "trials") as bar:
        for layer in range(len(model.layers) + 1):
            prefix = f"layers.{layer}." if layer < len(model.layers) else HEAD
            for module in (name for name in sizes if name.startswith(prefix)):
                for name in formats:
                    if _fits(name, *sizes[module], module):
                        kl = trial.kl(QuantPlan({module: name}))
                        found[module].append(Option(name, named_format(name).bytes(*sizes[module]), kl))
                    bar.advance()
            trial.advance()
    return found


def _fits(name: str, outputs: int, inputs: int, module: str) -> bool:
    format = named_format(name)
    if module == HEAD and format.bits < 8:
        return False
    return format.strategy != "group" or inputs % format.group_size == 0


class _Trial:
    """The original's predictions, and the hidden states before a layer: what a change from there on is measured by."""

    def __init__(self, model: Transformer, texts: Calibration) -> None:
        self.model, self.texts = model, texts
        self.start = 0
        self.hidden = [embedded(model, row) for row in texts.rows]
        self.head: Head = head_of(model)
        self.final = self._final()

    def advance(self) -> None:
        """Goes past the next layer."""
        if self.start < len(self.model.layers):
            self.hidden = [
                self._layer(row, x_BTD, self.start) for row, x_BTD in zip(self.texts.rows, self.hidden, strict=True)
            ]
            self.start += 1

    def kl(self, plan: QuantPlan) -> float:
        """Nats a token when the layers that `plan` names, none of them passed yet, are rounded."""
        total = Divergence()
        with rounded(self.model, plan):
            head = head_of(self.model)
            for row, old_BTD, new_BTD in zip(self.texts.rows, self.final, self._final(), strict=True):
                total += diverge((self.head, old_BTD), (head, new_BTD), targets(row).to(old_BTD.device))
        return total.kl / max(1, total.tokens)

    def _final(self) -> list[Tensor]:
        final = []
        for row, x_BTD in zip(self.texts.rows, self.hidden, strict=True):
            for layer in range(self.start, len(self.model.layers)):
                x_BTD = self._layer(row, x_BTD, layer)
            final.append(self.model.norm(x_BTD))
        return final

    def _layer(self, row: Row, x_BTD: Tensor, layer: int) -> Tensor:
        return self.model.layers[layer](x_BTD, context(self.model, row))


@contextmanager
def rounded(model: Transformer, plan: QuantPlan) -> Iterator[None]:
    """`model` with the layers of a plan rounded to nearest, for as long as the block runs."""
    kept = {name: model.get_submodule(name) for name in plan.modules}
    try:
        for name, linear in kept.items():
            weight = linear.weight
            assert isinstance(weight, Tensor)
            model.set_submodule(name, QuantLinear.from_weight(weight, plan.format(name), name=name))
        yield
    finally:
        for name, linear in kept.items():
            model.set_submodule(name, linear)


# Choosing -------------------------------------------------------------------------------------------------------------


def steps(found: Sensitivity) -> list[Step]:
    """All steps of all modules from one format to the next smaller one worth having, the cheapest for a byte first."""
    path = [step for module, options in found.items() for step in _hull(module, options)]
    return sorted(path, key=lambda step: step.price)


def _hull(module: str, options: Sequence[Option]) -> list[Step]:
    """The lower convex hull of (bytes, divergence), from bf16 down: its prices rise."""
    current = options[0]
    path: list[Step] = []
    while smaller := [option for option in options if option.bytes < current.bytes]:
        best = min(
            smaller, key=lambda option: ((option.kl - current.kl) / (current.bytes - option.bytes), option.bytes)
        )
        saved = current.bytes - best.bytes
        path.append(Step(module, best.format, saved, (best.kl - current.kl) / saved))
        current = best
    return path


def plan_after(path: Sequence[Step]) -> QuantPlan:
    """The plan that steps lead to from bf16."""
    return QuantPlan({step.module: step.format for step in path}, AUTO)


def for_bytes(found: Sensitivity, model: Transformer, budget: int) -> QuantPlan:
    """The plan with the least divergence whose model has at most `budget` bytes.

    Raises:
        ConfigError: not even the smallest formats are small enough.
    """
    path = steps(found)
    size = QuantPlan({}).bytes(model.config)
    taken: list[Step] = []
    for step in path:
        if size <= budget:
            break
        taken.append(step)
        size -= step.saved
    if size > budget:
        raise ConfigError(
            f"The budget is {format_bytes(budget)}; the smallest plan has {format_bytes(size)}.",
            hint="Raise --budget-bytes, or take a smaller model.",
        )
    return plan_after(_without_needless(taken, budget - size))


def _without_needless(taken: list[Step], room: int) -> list[Step]:
    """Takes back what the last step has made superfluous, the dearest first; of a module, only its last step."""
    kept = list(taken)
    for step in reversed(taken):
        is_last = all(other.module != step.module for other in kept[kept.index(step) + 1 :])
        if is_last and step.saved <= room and step.price > 0:
            kept.remove(step)
            room -= step.saved
    return kept


def for_kl(
    found: Sensitivity, model: Transformer, texts: Calibration, most: float, progress: Progress | None = None
) -> QuantPlan:
    """The smallest plan of the path whose measured divergence is at most `most` nats a token.

    Divergences of single modules do not quite add up, so whole plans are measured, by bisection.
    """
    path = steps(found)
    low, high = 0, len(path)
    with torch.inference_mode(), (progress or Silent()).task("max KL", len(path).bit_length(), "plans") as bar:
        trial = _Trial(model, texts)
        while low < high:
            middle = (low + high + 1) // 2
            fits = trial.kl(plan_after(path[:middle])) <= most
            low, high = (middle, high) if fits else (low, middle - 1)
            bar.advance()
    return plan_after(path[:low])


@dataclass(frozen=True, slots=True)
class Budget:
    """What a mixed plan may cost: exactly one of the two.

    Attributes:
        bytes: of the whole stored model.
        kl: nats a token from the original, on the measured texts.
    """

    bytes: int | None = None
    kl: float | None = None

    def __post_init__(self) -> None:
        require((self.bytes is None) != (self.kl is None), "A budget is given in bytes or as a divergence, and in one.")
        require(self.bytes is None or self.bytes > 0, f"The budget is {self.bytes} bytes; it must be above 0.")
        require(self.kl is None or self.kl >= 0, f"The largest divergence is {self.kl}; it must be at least 0.")


def auto_plan(
    model: Transformer,
    texts: Calibration,
    budget: Budget,
    formats: Sequence[str] = DEFAULT_FORMATS,
    progress: Progress | None = None,
) -> QuantPlan:
    """Measures each module, and gives the best plan within a budget; the model is left as it was.

    Raises:
        ConfigError: a budget that no plan meets, or formats that cannot be measured.
    """
    found = measure(model, texts, formats, progress)
    if budget.bytes is not None:
        return for_bytes(found, model, budget.bytes)
    assert budget.kl is not None
    return for_kl(found, model, texts, budget.kl, progress)
