from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.wire.connectors import ConnectorBody


def test_a_connector_is_a_name_and_an_address() -> None:
    body = ConnectorBody.model_validate({"connector_id": "a", "url": "https://a/mcp", "connector_type": "mcp"})
    assert (body.server_label, body.server_description) == (None, None)
    for bad in ({"connector_id": "", "url": "x"}, {"connector_id": "a"}, {"connector_id": "a" * 65, "url": "x"}):
        with pytest.raises(ValidationError):
            ConnectorBody.model_validate(bad)
