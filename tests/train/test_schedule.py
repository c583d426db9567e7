"""The reference is transformers. Its step i and ours are the same from the end of the warm-up on; within it, ours is
one ahead (step 0 has 1/(w+1) where transformers has 0), which is its step i + 1 of a warm-up of w + 1."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import ConfigError
from puna.train.schedule import ScheduleConfig

STEPS, WARMUP = 60, 7


def factors_of(make: Callable[..., Any], **settings: Any) -> list[float]:
    """A transformers schedule's factor at each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer, num_training_steps=STEPS, **settings)
    factors = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimizer steps are taken
        for _ in range(STEPS + 1):
            factors.append(optimizer.param_groups[0]["lr"])
            schedule.step()
    return factors


REFERENCES = {
    "cosine": (ScheduleConfig("cosine", WARMUP), transformers.get_cosine_schedule_with_warmup, {}),
    "cosine to a tenth": (
        ScheduleConfig("cosine", WARMUP, final_ratio=0.1),
        transformers.get_cosine_with_min_lr_schedule_with_warmup,
        {"min_lr_rate": 0.1},
    ),
    "linear": (ScheduleConfig("linear", WARMUP), transformers.get_linear_schedule_with_warmup, {}),
    "wsd": (
        ScheduleConfig("wsd", WARMUP, decay_share=10 / (STEPS - WARMUP)),
        transformers.get_wsd_schedule,
        {"num_decay_steps": 10, "decay_type": "linear"},
    ),
    "wsd, sqrt": (
        ScheduleConfig("wsd", WARMUP, decay_share=10 / (STEPS - WARMUP), decay_shape="sqrt"),
        transformers.get_wsd_schedule,
        {"num_decay_steps": 10, "decay_type": "1-sqrt"},
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_factors_are_those_of_transformers(name: str) -> None:
    ours, reference, settings = REFERENCES[name]
    after = factors_of(reference, num_warmup_steps=WARMUP, **settings)
    for step in range(WARMUP, STEPS):
        assert ours.factor(step, STEPS) == pytest.approx(after[step], abs=1e-9), step
    warming = factors_of(reference, num_warmup_steps=WARMUP + 1, **settings)
    for step in range(WARMUP):
        assert ours.factor(step, STEPS) == pytest.approx(warming[step + 1], abs=1e-9), step


schedules = st.builds(
    ScheduleConfig,
    kind=st.sampled_from(["cosine", "wsd", "linear", "constant"]),
    warmup_steps=st.integers(0, 50),
    decay_share=st.floats(0.01, 1),
    decay_shape=st.sampled_from(["linear", "sqrt"]),
    final_ratio=st.floats(0, 1),
)


@given(schedules, st.integers(1, 120))
def test_a_rate_rises_in_the_warm_up_then_never_again(schedule: ScheduleConfig, steps: int) -> None:
    factors = [schedule.factor(step, steps) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors), "no step learns nothing"
    peak = min(schedule.warmup_steps, steps - 1)
    assert all(a < b for a, b in pairwise(factors[: peak + 1]))
    assert all(a >= b - 1e-12 for a, b in pairwise(factors[peak:]))
    assert all(factor >= schedule.final_ratio - 1e-12 for factor in factors[schedule.warmup_steps :])
    if steps > schedule.warmup_steps:
        assert factors[schedule.warmup_steps] == 1
        assert schedule.factor(steps, steps) == pytest.approx(
            1 if schedule.kind == "constant" else schedule.final_ratio
        )


def test_wsd_holds_the_peak_until_its_decay() -> None:
    schedule = ScheduleConfig("wsd", warmup_steps=10, decay_share=0.25, final_ratio=0.1)
    factors = [schedule.factor(step, 110) for step in range(110)]
    assert set(factors[10:86]) == {1.0}
    assert factors[86] < 1
    assert factors[-1] == pytest.approx(0.1 + 0.9 / 25)


@pytest.mark.parametrize(
    "settings",
    [
        {"warmup_steps": -1},
        {"decay_share": 0.0},
        {"decay_share": 1.1},
        {"final_ratio": -0.1},
        {"final_ratio": 1.1},
        {"final_ratio": math.nan},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ScheduleConfig(**settings)
