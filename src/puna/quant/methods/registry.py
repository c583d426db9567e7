"""The methods by name, and chains of them as the user writes them: "smoothquant:0.8+gptq"."""

from __future__ import annotations

from collections.abc import Callable

from puna.base.errors import ConfigError, near
from puna.base.registry import Registry
from puna.quant.methods.awq import ActivationAware
from puna.quant.methods.gptq import Gptq
from puna.quant.methods.method import Method
from puna.quant.methods.rotate import Rotate
from puna.quant.methods.rtn import RoundToNearest
from puna.quant.methods.smoothquant import SmoothQuant

METHODS: Registry[Callable[..., Method]] = Registry("quantisation method", "puna.quant_methods")
METHODS.add("rtn", RoundToNearest)
METHODS.add("gptq", Gptq)
METHODS.add("awq", ActivationAware)
METHODS.add("smoothquant", SmoothQuant)
METHODS.add("rotate", Rotate)


def parse(chain: str) -> list[Method]:
    """The steps of a chain; where none of them rounds, round to nearest comes last.

    Args:
        chain: names joined by "+", in the order in which a layer meets them. A number after a colon is the first
            argument of a method: the alpha of smoothquant, the grid of awq, the dampening of gptq, the seed of rotate.

    Raises:
        ConfigError: an unknown name, an argument that is no number, or two steps that round.
    """
    steps = [_step(part.strip()) for part in chain.split("+")]
    rounding = [step for step in steps if step.rounds]
    if any(isinstance(step, Gptq) for step in rounding):
        for step in steps:
            if isinstance(step, ActivationAware):
                step.clip = False  # GPTQ moves weights beyond their old range, and wants the room
    if len(rounding) > 1 or (rounding and steps[-1] is not rounding[0]):
        raise ConfigError(
            f"The method {chain!r} rounds before its end.", hint="Rounding (rtn or gptq) is the last step, and one."
        )
    return steps if rounding else [*steps, RoundToNearest()]


def _step(text: str) -> Method:
    name, colon, argument = text.partition(":")
    if name not in METHODS:
        raise ConfigError(f"There is no quantisation method {name!r}.", hint=near(name, METHODS.names()))
    make = METHODS.get(name)
    if not colon:
        return make()
    if make is RoundToNearest:
        raise ConfigError(f"{text!r}: rtn takes no number.")
    try:
        number = float(argument)
    except ValueError as error:
        raise ConfigError(f"{text!r}: {argument!r} is not a number.", hint="Write smoothquant:0.8, say.") from error
    return make(int(number) if number.is_integer() and name in ("awq", "rotate") else number)
