"""Bodies of tools."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.wire.tools import InvokeBody, ToolGroupBody


def test_a_tool_is_run_with_named_arguments() -> None:
    assert InvokeBody.model_validate({"tool_name": "t", "kwargs": {"a": 1}, "authorization": "x"}).kwargs == {"a": 1}
    with pytest.raises(ValidationError):
        InvokeBody.model_validate({"tool_name": "t", "kwargs": [1]})
    assert ToolGroupBody(toolgroup_id="g").args is None
    assert ToolGroupBody.model_validate({"toolgroup_id": "g", "mcp_endpoint": {"uri": "https://a"}}).mcp_endpoint
    with pytest.raises(ValidationError):
        ToolGroupBody.model_validate({"toolgroup_id": "g", "mcp_endpoint": {"url": "https://a"}})
