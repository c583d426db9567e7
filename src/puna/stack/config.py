"""`stack.toml`: what a server is made of, and where it keeps things.

    [server]
    host = "127.0.0.1"
    port = 8321

    [providers.vllm]
    type = "remote::openai"
    url = "http://10.0.0.5:8000/v1"
    key = "${VLLM_KEY:}"

`${NAME}` is an environment variable, and `${NAME:default}` one that may be unset; secrets need not stand in the file.
Where NAME is unset and NAME_FILE names a file, that file's content stands in, less the line breaks at its end: so come
the secrets of systemd, Kubernetes and Compose.
A provider with `enabled = "${SOME_KEY:}"` is left out where the variable is empty. Everything else is strict: an
unknown setting is refused with the nearest known one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from puna.base.config import from_dict, read_toml, require
from puna.base.errors import ConfigError
from puna.base.web import is_loopback
from puna.stack.mcp.settings import NAME, ConnectorConfig, McpConfig

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where it listens, and what it lets in.

    Attributes:
        host: an address of this machine; any but the loopback's needs keys.
        port: 0 takes a free one.
        tls_cert: PEM file of the certificate; "" for plain HTTP.
        tls_key: PEM file of its key.
        max_body_bytes: of a request; files are counted apart.
        max_file_bytes: of an uploaded file.
        cors_origins: web pages elsewhere that may call; none by default.
        drain_seconds: how long requests under way may take when the server stops.
        key: one that may do everything, "puna-OWNER-SECRET", beside those that `puna keys` makes; "" for none.
        require_keys: whether every request needs a key; by default where any key exists.
        requests_per_minute: of one key (or of all who have none); 0 for no limit.
        tokens_per_minute: likewise, prompts and answers together.
    """

    host: str = "127.0.0.1"
    port: int = 8321
    tls_cert: str = ""
    tls_key: str = ""
    max_body_bytes: int = 32 << 20
    max_file_bytes: int = 512 << 20
    cors_origins: tuple[str, ...] = ()
    drain_seconds: float = 30.0
    key: str = field(default="", repr=False)
    require_keys: bool | None = None
    requests_per_minute: int = 0
    tokens_per_minute: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, f"port is {self.port}; it must be from 0 to 65535.")
        given, other = ("tls_cert", "tls_key") if self.tls_cert else ("tls_key", "tls_cert")
        require(bool(self.tls_cert) == bool(self.tls_key), f"There is {given} without {other}.",
                "TLS needs the certificate and its key: --tls-cert FILE --tls-key FILE.")  # fmt: skip
        for name in ("max_body_bytes", "max_file_bytes"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be above 0.")
        for name in ("drain_seconds", "requests_per_minute", "tokens_per_minute"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be at least 0.")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """Where records and files are kept.

    Attributes:
        database: a path of an SQLite file, or "postgresql://user@host/name".
        files: a folder for uploaded files and indexes; by default beside the SQLite file.
    """

    database: str = ""
    files: str = ""


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """Where traces go; OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT, say it too.

    Attributes:
        endpoint: of a collector that takes OTLP over HTTP: "http://127.0.0.1:4318"; "" leaves it to the variables.
    """

    endpoint: str = ""

    def __post_init__(self) -> None:
        whole = not self.endpoint or self.endpoint.startswith(("http://", "https://"))
        require(whole, f"endpoint is {self.endpoint!r}.", "Write it with its scheme: http://127.0.0.1:4318.")


@dataclass(frozen=True, slots=True)
class StackConfig:
    """A server.

    Attributes:
        server: where it listens.
        storage: where it keeps things.
        providers: name -> `type` and that type's own settings.
        routes: name -> settings of a router over the providers.
        shields: name -> `type` and settings.
        mcp: how servers of tools are talked to.
        connectors: name -> a server of tools that every caller may use.
        telemetry: where traces go.
    """

    server: ServerConfig = field(default_factory=ServerConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    routes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mcp: McpConfig = field(default_factory=McpConfig)
    connectors: Mapping[str, ConnectorConfig] = field(default_factory=dict)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)

    def __post_init__(self) -> None:
        for name, settings in self.providers.items():
            require(re.fullmatch(r"[\w.-]+", name) is not None, f"The provider name {name!r} has other characters than "
                    "letters, digits, '.', '_' and '-'.")  # fmt: skip
            require("type" in settings, f"The provider {name!r} has no type.", 'Write type = "remote::openai".')
        for name in self.connectors:
            require(NAME.fullmatch(name) is not None, f"The connector name {name!r} has other characters than letters, "
                    "digits, '.', '_' and '-', or begins with one of these.")  # fmt: skip


def read_config(path: Path | str, environment: Mapping[str, str] | None = None) -> StackConfig:
    """Reads a `stack.toml`.

    Raises:
        ConfigError: an unknown setting, a wrong value, or a variable that is not set and has no default.
    """
    data = substituted(read_toml(path), os.environ if environment is None else environment)
    providers = data.get("providers", {})
    if isinstance(providers, Mapping):
        kept = {name: dict(settings) for name, settings in providers.items() if settings.get("enabled", True)}
        for settings in kept.values():
            settings.pop("enabled", None)
        data = {**data, "providers": kept}
    return from_dict(StackConfig, data)


def substituted(value: Any, environment: Mapping[str, str], at: str = "") -> Any:
    """A value with the environment's in the place of `${NAME}` in its texts."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _variable(found, environment, at), value)
    if isinstance(value, Mapping):
        return {key: substituted(item, environment, f"{at}.{key}" if at else key) for key, item in value.items()}
    if isinstance(value, list):
        return [substituted(item, environment, f"{at}[{i}]") for i, item in enumerate(value)]
    return value


def _variable(found: re.Match[str], environment: Mapping[str, str], at: str) -> str:
    name, default = found[1], found[2]
    if name in environment:
        return environment[name]
    if path := environment.get(f"{name}_FILE"):
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ConfigError(
                f"{at} needs the file {path} that {name}_FILE names, which cannot be read: {why}.",
                hint=f"Check the path and its permissions, or set {name}.",
            ) from error
    if default is None:
        raise ConfigError(
            f"{at} needs the environment variable {name}, which is not set.",
            hint=f"Set it, or write ${{{name}:}} where it may be empty.",
        )
    return default
