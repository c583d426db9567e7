"""Bodies of agents, sessions and turns."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from puna.stack.wire.base import Wire


class GroupWithArgs(Wire):
    """A tool group with arguments that the model does not choose."""

    name: str
    args: dict[str, Any] = Field(default_factory=dict)


class AgentConfig(Wire):
    """An agent."""

    model: str
    instructions: str = ""
    name: str | None = None
    toolgroups: list[str | GroupWithArgs] | None = None
    client_tools: list[dict[str, Any]] | None = None
    tool_choice: str | None = None
    tool_config: dict[str, Any] | None = None
    tool_prompt_format: str | None = None
    input_shields: list[str] | None = None
    output_shields: list[str] | None = None
    max_infer_iters: int | None = Field(None, ge=1, le=1000)
    sampling_params: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    enable_session_persistence: bool | None = None


class AgentBody(Wire):
    """Creates an agent."""

    agent_config: AgentConfig


class SessionBody(Wire):
    """Creates a session."""

    session_name: str = ""


class TurnBody(Wire):
    """Begins a turn."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    stream: bool | None = False
    documents: list[dict[str, Any]] | None = None
    toolgroups: list[str | GroupWithArgs] | None = None
    tool_config: dict[str, Any] | None = None


class ResumeBody(Wire):
    """Results of the tools that the client ran: a list, or by call id."""

    tool_responses: list[dict[str, Any]] | dict[str, dict[str, Any]]
    stream: bool | None = False
