"""Bodies of connectors: servers of tools under a name."""

from __future__ import annotations

from pydantic import Field

from puna.stack.wire.base import Wire


class ConnectorBody(Wire):
    """Registers a connector. A program of the server's machine can only be one of its settings."""

    connector_id: str = Field(min_length=1, max_length=64)
    url: str
    server_label: str | None = None
    server_description: str | None = None


class Connector(Wire):
    """A connector; what the server says of itself is known once it has been asked."""

    connector_type: str
    connector_id: str
    url: str
    server_label: str | None
    server_name: str | None
    server_description: str | None
    server_version: str | None


class ConnectorTool(Wire):
    """A tool of a connector."""

    toolgroup_id: str | None
    name: str
    description: str | None
    input_schema: dict[str, object] | None
    metadata: dict[str, object] | None
