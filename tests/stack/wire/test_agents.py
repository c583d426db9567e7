"""Bodies of agents."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.wire.agents import AgentBody, AgentConfig, GroupWithArgs, ResumeBody, TurnBody


def test_tool_groups_are_names_or_have_arguments() -> None:
    config = AgentConfig.model_validate({"model": "m", "toolgroups": ["a", {"name": "b", "args": {"x": 1}}]})
    assert config.toolgroups == ["a", GroupWithArgs(name="b", args={"x": 1})]


def test_results_are_a_list_or_by_id() -> None:
    assert ResumeBody.model_validate({"tool_responses": [{"call_id": "c"}]}).tool_responses == [{"call_id": "c"}]
    assert ResumeBody.model_validate({"tool_responses": {"c": {}}}).tool_responses == {"c": {}}


@pytest.mark.parametrize("config", [{}, {"model": "m", "max_infer_iters": 0}, {"model": "m", "toolgroups": [1]}])
def test_broken_agents(config: dict) -> None:
    with pytest.raises(ValidationError):
        AgentBody.model_validate({"agent_config": config})


def test_a_turn_needs_a_message() -> None:
    with pytest.raises(ValidationError):
        TurnBody(messages=[])
