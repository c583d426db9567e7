"""Settings of servers of tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from puna.base.errors import ConfigError
from puna.stack.config import read_config
from puna.stack.mcp.settings import ConnectorConfig, check_url

TEXT = """
[mcp]
allow = ["127.0.0.1", "10.0.0.0/8"]
seconds = 5

[connectors.tickets]
url = "https://tickets.example.org/mcp"
headers = { Authorization = "Bearer ${TOKEN}" }

[connectors.files]
command = ["serve-files", "/srv"]
environment = { DEPTH = "3" }
"""


def test_connectors_are_read_and_their_secrets_do_not_show(tmp_path: Path) -> None:
    path = tmp_path / "stack.toml"
    path.write_text(TEXT)
    config = read_config(path, {"TOKEN": "sesame"})
    assert (config.mcp.allow, config.mcp.seconds) == (("127.0.0.1", "10.0.0.0/8"), 5.0)
    assert config.connectors["tickets"].headers == {"Authorization": "Bearer sesame"}
    assert config.connectors["files"].command == ("serve-files", "/srv")
    assert "sesame" not in repr(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mcp]\nseconds = 0", "seconds is 0"),
        ('[mcp]\nallow = ["10.0.0.0/99"]', "no network"),
        ("[connectors.x]\n", "either a url or a command"),
        ('[connectors.x]\nurl = "http://a"\ncommand = ["b"]', "either a url or a command"),
        ('[connectors.x]\nurl = "ftp://a"', "must be http"),
        ('[connectors."a b"]\nurl = "http://a"', "connector name 'a b'"),
        ('[connectors.x]\nadress = "http://a"', "no setting 'connectors.x.adress'"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "stack.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(path, {})


@pytest.mark.parametrize("url", ["", "x", "file:///etc/passwd", "http://", "stdio://x"])
def test_an_address_is_of_the_web(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        check_url(url, ValueError)
    assert check_url("http://a/mcp", ValueError).host == "a"
    assert ConnectorConfig("http://a").command == ()
