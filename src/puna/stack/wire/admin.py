"""Answers about the server itself."""

from __future__ import annotations

from typing import Any

from puna.stack.wire.base import Wire


class HealthInfo(Wire):
    """Whether the server works, with every part by name; `degraded` says which do not, and why."""

    status: str
    degraded: dict[str, str]
    parts: dict[str, str]


class VersionInfo(Wire):
    """The version of Puna."""

    version: str


class ProviderInfo(Wire):
    """A provider of one API."""

    api: str
    provider_id: str
    provider_type: str
    config: dict[str, Any]
    health: dict[str, str]


class ProviderList(Wire):
    """All providers."""

    data: list[ProviderInfo]


class RouteInfo(Wire):
    """A route, and what serves it."""

    route: str
    method: str
    provider_types: list[str]


class RouteList(Wire):
    """All routes."""

    data: list[RouteInfo]
