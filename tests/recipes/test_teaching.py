"""A teacher behind a URL: a real server on loopback answers, and only quotations are kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from puna.base.errors import ConfigError
from puna.base.progress import Silent
from puna.core.document import Document
from puna.recipes.teaching import TeachingConfig, taught_conversations

TEXT = "A crate is a box with a lid. It holds pieces of marble until they are sold to whoever asks for them first. " * 3


class Teacher(ThreadingHTTPServer):
    """Answers every request with one quotation and one invention, and counts."""

    asked = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.server.asked += 1  # type: ignore[attr-defined]
            pairs = [
                {"question": "What is a crate?", "answer": "a box with a lid"},
                {"question": "What does a crate cost?", "answer": "nine hundred euros"},
            ]
            message = {"role": "assistant", "content": json.dumps(pairs)}
            body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    server = Teacher(("127.0.0.1", 0), Teacher.Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_quotations_are_kept_inventions_refused_and_nothing_asked_twice(teacher: Teacher, tmp_path: Path) -> None:
    config = TeachingConfig(f"http://127.0.0.1:{teacher.server_port}/v1", "big", passages=2, concurrency=2)
    documents = [Document(f"{i} {TEXT}", str(i), meta={"kind": "text"}) for i in range(6)]
    made, report = taught_conversations(documents, 400, config, tmp_path / "cache", Silent())
    assert report["passages"] == teacher.asked == 2
    assert report["kept"] == 2
    assert sum(report["refused"].values()) == 2
    assert {message.content for c in made for message in c.messages if message.role == "assistant"} == {
        "a box with a lid"
    }
    again, _ = taught_conversations(documents, 400, config, tmp_path / "cache", Silent())
    assert again == made
    assert teacher.asked == 2


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="passages"):
        TeachingConfig("http://127.0.0.1:1/v1", "big", passages=-1)
