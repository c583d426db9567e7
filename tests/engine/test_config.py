from __future__ import annotations

from typing import Any

import pytest

from puna.base.config import from_dict, to_dict
from puna.base.errors import ConfigError
from puna.engine.config import EngineConfig


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("cache_bytes", -1, r"at least 0 \(0 chooses\)"),
        ("max_context", -1, r"at least 0 \(0 for the model's\)"),
        ("page_tokens", 0, "at least 1"),
        ("max_running", 0, "at least 1"),
        ("step_tokens", 0, "at least 1"),
        ("mixed_step_tokens", -5, "at least 1"),
        ("draft_tokens", 0, "at least 1"),
    ],
)
def test_a_limit_out_of_range_is_refused_with_its_name_value_and_rule(name: str, value: int, rule: str):
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=f"{name} is {value}; it must be {rule}"):
        EngineConfig(**settings)


@pytest.mark.parametrize(("name", "value"), [("cache_dtype", "int4"), ("draft", "oracle")])
def test_a_choice_that_does_not_exist_is_refused_when_it_is_read(name: str, value: str):
    with pytest.raises(ConfigError, match=value):
        from_dict(EngineConfig, {name: value})


def test_a_config_survives_writing_and_reading():
    config = EngineConfig(cache_bytes=1 << 30, cache_dtype="fp8", draft="ngram", prefix_cache=False, max_running=3)
    assert from_dict(EngineConfig, to_dict(config)) == config
    assert from_dict(EngineConfig, {}) == EngineConfig()
