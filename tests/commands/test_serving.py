"""`puna serve`: what is refused at once, and where a server keeps things."""

from __future__ import annotations

from pathlib import Path

from puna.commands.serving import read, state_folder


def test_there_must_be_something_to_serve(puna, tmp_path: Path) -> None:
    code, _, errors = puna("serve")
    assert code == 2
    assert "nothing to serve" in errors
    code, _, errors = puna("serve", tmp_path / "nowhere")
    assert code
    assert "There is no folder" in errors


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "stack.toml"
    path.write_text("[server]\nport = 9000\nhost = '127.0.0.2'")
    assert (read(path, {"port": None}).server.port, read(path, {"port": 0}).server.port) == (9000, 0)
    assert read(path, {"host": "127.0.0.1"}).server.host == "127.0.0.1"
    assert read(None, {}).server.port == 8321


def test_a_run_keeps_its_servers_state(tmp_path: Path) -> None:
    (tmp_path / "lineage.json").write_text("{}")
    assert state_folder(None, tmp_path) == tmp_path / "stack"
    assert state_folder(tmp_path / "x", tmp_path) == tmp_path / "x"
    assert state_folder(None, tmp_path / "checkpoint") == Path.home() / ".puna"
