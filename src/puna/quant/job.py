"""The whole way: a float checkpoint and the user's texts go in, a quantised model and what it has lost come out.

The command and the stage of a recipe both call `quantize`; where the texts come from and where the model goes to is
theirs. The model is opened twice, once to stay as it is: a mapped checkpoint then costs its memory once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from puna.base.config import require
from puna.base.progress import Progress
from puna.model.budget import weight_bytes
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.quant.apply import quantize_model
from puna.quant.calibrate import Calibration, CalibrationConfig
from puna.quant.compare import QuantReport, compare
from puna.quant.methods.registry import parse
from puna.quant.methods.rotate import Rotate
from puna.quant.plan import AUTO, QuantPlan, from_recipe
from puna.quant.sensitivity import DEFAULT_FORMATS, Budget, auto_plan

_FLOAT32_BYTES = 4 << 30

Sequences = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class QuantConfig:
    """How a model is quantised.

    Attributes:
        recipe: a row of `assets/recipes.toml`, or "auto" for mixed precision within a budget.
        method: a chain of `methods.registry`.
        head: the format of the output matrix; "auto" plans choose it themselves.
        rows: "glob=format" more, which win over the recipe's.
        budget_bytes: for "auto": the whole stored model; 0 for none.
        max_kl: for "auto": nats a token from the original; 0 for none.
        formats: for "auto": what it chooses among, beside bf16.
        calibration_tokens: that the methods see, at most.
        sensitivity_tokens: that "auto" measures on, at most.
        compare_tokens: that original and result are compared on, at most.
        seed: of the draw of texts.
    """

    recipe: str = "fp8"
    method: str = "rtn"
    head: str = "bf16"
    rows: tuple[str, ...] = ()
    budget_bytes: int = 0
    max_kl: float = 0.0
    formats: tuple[str, ...] = DEFAULT_FORMATS
    calibration_tokens: int = 65_536
    sensitivity_tokens: int = 4096
    compare_tokens: int = 65_536
    seed: int = 0

    def __post_init__(self) -> None:
        budgets = bool(self.budget_bytes) + bool(self.max_kl)
        if self.recipe == AUTO:
            require(budgets == 1, 'The recipe "auto" needs one budget.', "Give --budget-bytes or --max-kl.")
            require(not self.rows, 'The recipe "auto" takes no rows: it chooses every format itself.')
        else:
            require(budgets == 0, f"A budget is for the recipe 'auto', and the recipe is {self.recipe!r}.")
        for row in self.rows:
            require("=" in row, f"The row {row!r} has no '='.", "Write it as 'layers.0.*=int8'.")
        parse(self.method)

    @property
    def unties(self) -> bool:
        """Whether the method gives a tied model an output matrix of its own."""
        return any(isinstance(step, Rotate) for step in parse(self.method))


@dataclass(frozen=True, slots=True)
class Quantized:
    """What comes out.

    Attributes:
        original: the float model.
        model: the quantised one.
        plan: which of its layers has which format.
        report: what it has lost.
    """

    original: Transformer
    model: Transformer
    plan: QuantPlan
    report: QuantReport


def compute_dtype(config: ModelConfig, name: str = "auto") -> str:
    """The dtype that a float model is opened in: "auto" is float32, and bfloat16 where that would be too large."""
    if name != "auto":
        return name
    return "float32" if weight_bytes(config, "float32") <= _FLOAT32_BYTES else "bfloat16"


def quantize(
    load: Callable[[], Transformer],
    calibration: Sequences,
    held_out: Sequences,
    config: QuantConfig,
    progress: Progress | None = None,
) -> Quantized:
    """Quantises a model and compares it with its original.

    Args:
        load: opens the float model; called twice.
        calibration: token ids of the texts that methods see.
        held_out: token ids of the texts that both models are compared on.
        config: how.
        progress: who watches.

    Raises:
        ConfigError: a recipe, method or budget that cannot be.
        InputError: texts of another tokenizer, none at all, or weights that are not finite.
    """
    original, model = load().eval(), load().eval()
    longest = min(2048, original.config.max_position_embeddings)

    def texts(sequences: Sequences, tokens: int) -> Calibration:
        return Calibration(sequences, CalibrationConfig(tokens, longest, config.seed))

    compared = texts(held_out, config.compare_tokens)
    compared.check(original)
    if config.recipe == AUTO:
        plan = auto_plan(
            original, texts(calibration, config.sensitivity_tokens), _budget(config, original), config.formats, progress
        )
    else:
        rows = [(glob, format) for glob, _, format in (row.partition("=") for row in config.rows)]
        plan = from_recipe(config.recipe, original.config, config.head, rows)
    seen = texts(calibration, config.calibration_tokens)
    with torch.no_grad():
        quantize_model(model, plan, config.method, seen, progress)
    return Quantized(original, model, plan, compare(original, model, compared, plan, config.method, progress))


def _budget(config: QuantConfig, model: Transformer) -> Budget:
    """The budget of the layers: a tied model that the method unties needs room for its second matrix."""
    if not config.budget_bytes:
        return Budget(kl=config.max_kl)
    tied = config.unties and model.config.tie_word_embeddings
    second = 2 * model.config.vocab_size * model.config.hidden_size if tied else 0
    require(
        config.budget_bytes > second,
        f"The budget is {config.budget_bytes:,} bytes, and rotation unties the output matrix, which has {second:,}.",
        "Leave out rotate.",
    )
    return Budget(bytes=config.budget_bytes - second)
