"""The seam of the methods: a step prepares the whole model, or does something to a layer when its turn comes.

Two kinds of steps exist. Some change the float model without changing what it computes, so that rounding will hurt
less (`smoothquant`, `awq`, `rotate`); one, the last, rounds the layers that the plan names (`rtn`, `gptq`). A method as
the user writes it is a chain of them: "rotate+awq+gptq".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from puna.model.transformer import Transformer
from puna.quant.calibrate import Inputs, Stage
from puna.quant.formats import WeightFormat
from puna.quant.linear import QuantLinear, with_input_scale
from puna.quant.plan import QuantPlan


@dataclass(frozen=True, slots=True)
class Work:
    """A model on its way from float to quantised.

    Attributes:
        model: changed in place.
        plan: which layer gets which format.
    """

    model: Transformer
    plan: QuantPlan

    def planned(self, stage: Stage) -> Iterator[tuple[str, nn.Linear, WeightFormat]]:
        """The layers of a stage that are still to be rounded."""
        for name, linear in stage.linears().items():
            if name in self.plan.modules:
                yield name, linear, self.plan.format(name)

    def is_static(self, stage: Stage) -> bool:
        """Whether a layer of the stage needs the largest of its inputs."""
        return any(format.activations == "tensor" for _, _, format in self.planned(stage))

    def install(self, name: str, tensors: dict[str, Tensor], inputs: Inputs | None) -> None:
        """Puts stored tensors in the place of a float layer.

        Args:
            name: of the layer.
            tensors: as `quantize_weight` gives them.
            inputs: what the layer is given; None where the format does not need to know.
        """
        format = self.plan.format(name)
        largest = float(inputs.absmax_K.amax()) if inputs is not None else None
        scale = None if largest is None else (largest or format.limit) / format.limit
        tensors = with_input_scale(tensors, format, scale, name)
        self.model.set_submodule(name, QuantLinear.from_tensors(tensors, format, name))


class Method:
    """A step. Subclasses override one of the two functions, or both.

    Attributes:
        rounds: whether it puts quantised layers in the place of float ones.
        calibrates: whether it must see the layers' inputs.
    """

    rounds = False
    calibrates = False

    def prepare(self, work: Work) -> None:
        """Changes the whole model before any layer's turn."""

    def layer(self, work: Work, stage: Stage) -> None:
        """Changes one layer."""
