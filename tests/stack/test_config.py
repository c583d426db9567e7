"""`stack.toml`: what is read, what is substituted, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from puna.base.errors import ConfigError
from puna.stack.config import ServerConfig, StackConfig, read_config, substituted

TEXT = """
[server]
port = 9000
tokens_per_minute = 100

[storage]
database = "${DATA:/tmp}/stack.db"

[providers.vllm]
type = "remote::openai"
url = "http://${HOST}/v1"
key = "${KEY:}"

[providers.paid]
type = "remote::openai"
enabled = "${KEY:}"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "stack.toml"
    path.write_text(text)
    return path


def test_variables_stand_in_for_their_values(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, TEXT), {"HOST": "10.0.0.5:8000"})
    assert config.server == ServerConfig(port=9000, tokens_per_minute=100)
    assert config.storage.database == "/tmp/stack.db"
    assert config.providers == {"vllm": {"type": "remote::openai", "url": "http://10.0.0.5:8000/v1", "key": ""}}
    config = read_config(write(tmp_path, TEXT), {"HOST": "h", "KEY": "sk", "DATA": "/data"})
    assert set(config.providers) == {"vllm", "paid"}
    assert config.providers["vllm"]["key"] == "sk"
    assert "enabled" not in config.providers["paid"]


def test_a_variable_that_must_be_there_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"providers\.vllm\.url needs the environment variable HOST") as caught:
        read_config(write(tmp_path, TEXT), {})
    assert "${HOST:}" in caught.value.hint


def test_a_secret_may_lie_in_a_file_that_a_variable_names(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1\r\n")
    named = {"HOST": "h", "KEY_FILE": str(tmp_path / "key")}
    assert read_config(write(tmp_path, TEXT), named).providers["vllm"]["key"] == "sk-1"
    assert read_config(write(tmp_path, TEXT), {**named, "KEY": "sk-2"}).providers["vllm"]["key"] == "sk-2"
    with pytest.raises(ConfigError, match=r"vllm\.key needs the file .*nowhere that KEY_FILE names.*No such file"):
        read_config(write(tmp_path, TEXT), {"HOST": "h", "KEY_FILE": str(tmp_path / "nowhere")})


def test_substitution_reaches_lists_and_leaves_other_values() -> None:
    value = {"a": ["${X}y", 3, True], "b": {"c": "$X ${X}${X}"}}
    assert substituted(value, {"X": "1"}) == {"a": ["1y", 3, True], "b": {"c": "$X 11"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1", "server.prot"),
        ("[server]\nport = 70000", "port is 70000"),
        ("[server]\ntls_cert = 'a.pem'", "tls_cert without tls_key"),
        ("[server]\nmax_body_bytes = 0", "max_body_bytes is 0"),
        ("[providers.x]\nurl = 'u'", "'x' has no type"),
        ("[providers.'a/b']\ntype = 't'", "'a/b'"),
        ("server = 3", "server is 3"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(write(tmp_path, text), {})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.9.9.9", True), ("0.0.0.0", False),
     ("10.1.1.1", False), ("::", False), ("example.org", False)],
)  # fmt: skip
def test_who_can_reach_an_address(host: str, loopback: bool) -> None:
    assert ServerConfig(host=host).is_loopback is loopback


def test_the_defaults_serve_nobody_but_this_machine() -> None:
    assert StackConfig().server.is_loopback
