"""`puna route`, by its own command object, so that it needs no line in the table of commands."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from puna.base.errors import InputError
from puna.commands.routing import command
from puna.stack.routing.canaries import read_questions
from puna.stack.routing.decision import replay


def explain(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, ["explain", *map(str, arguments)])


def test_a_table_of_all_who_sell_the_model() -> None:
    result = explain("--prompt", 20000, "--output", 1000)
    assert result.exit_code == 0, result.output
    assert "20,000 tokens of prompt, 1,000 of answer expected" in result.output
    lines = {line.split()[1]: line for line in result.output.splitlines() if "$" in line and len(line.split()) > 3}
    assert lines["hyperbolic"].split()[0] == "1"
    assert "$0.016800" in lines["lambda"]
    assert lines["sambanova"].split()[0] == "-"
    assert "context of 16,384 tokens" in result.output


def test_json_is_a_decision_that_replays() -> None:
    result = explain("--prompt", 1000, "--output", 100, "--provider", '{"precision": "fp8"}', "--json")
    decision = json.loads(result.output)
    assert [row["candidate"] for row in decision["verdicts"] if row["place"]] == ["lambda/llama-3.1-405b-instruct"]
    assert replay(decision)[1]


def test_a_request_in_a_file_brings_its_size_and_limits(tmp_path: Path) -> None:
    request = {"messages": [{"role": "user", "content": "word " * 20000}], "max_tokens": 700,
               "provider": {"data_collection": "deny"}}  # fmt: skip
    (tmp_path / "request.json").write_text(json.dumps(request))
    result = explain("--request", tmp_path / "request.json", "--json")
    decision = json.loads(result.output)
    assert decision["facts"]["longest"] == 700
    assert 20_000 < decision["facts"]["prompt_tokens"] < 30_000
    places = {row["candidate"].split("/")[0]: row["place"] for row in decision["verdicts"]}
    assert places["bedrock"] == 1
    assert places["hyperbolic"] == 0
    assert "estimated" in explain("--request", tmp_path / "request.json").output


def test_nobody_qualifies_is_said() -> None:
    assert "Nobody qualifies." in explain("--provider", '{"local": true}').output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--provider", "{"), "not JSON"),
        (("--provider", "[]"), "must be an object"),
        (("--provider", '{"max_prize": 1}'), "max_prize"),
        (("--model", "llama-9000b"), "no model"),
    ],
)
def test_mistakes_are_explained(arguments: tuple[str, ...], message: str) -> None:
    result = explain(*arguments)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_a_reference_is_measured_on_a_server(tmp_path: Path) -> None:
    """The server answers each question right, but for one, and gives log-probabilities."""

    class Sound(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = asked["messages"][0]["content"]
            question = next(question for question in read_questions() if question.prompt == prompt)
            text = "no idea" if question.id == "planet" else question.answers[0]
            logprobs = {"content": [{"token": text, "bytes": None, "logprob": -0.25, "top_logprobs": []}]}
            piece = {"index": 0, "delta": {"content": text}, "logprobs": logprobs, "finish_reason": None}
            end = {"index": 0, "delta": {}, "finish_reason": "stop"}
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for data in ({"choices": [piece]}, {"choices": [end]}):
                self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Sound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        arguments = [f"http://127.0.0.1:{server.server_port}/v1", "--model", "llama", "--rounds", "2"]
        result = CliRunner().invoke(command, ["reference", *arguments, "--out", str(tmp_path / "q.toml")])
        server.shutdown()
    assert result.exit_code == 0, result.output
    kept = read_questions(str(tmp_path / "q.toml"))
    assert len(kept) == len(read_questions()) - 1
    assert {question.logprob for question in kept} == {-0.25}
