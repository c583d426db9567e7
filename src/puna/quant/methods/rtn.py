"""Round to nearest: each weight by itself. It needs no texts, but for formats whose inputs have one scale for all."""

from __future__ import annotations

from puna.quant.calibrate import Stage
from puna.quant.formats import quantize_weight
from puna.quant.methods.method import Method, Work


class RoundToNearest(Method):
    rounds = True

    def layer(self, work: Work, stage: Stage) -> None:
        seen = stage.inputs() if work.is_static(stage) and stage.calibration else {}
        for name, linear, format in list(work.planned(stage)):
            work.install(name, quantize_weight(linear.weight.detach(), format, name), seen.get(name))
