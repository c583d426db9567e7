"""How much of OGX's own integration suite passes: on OGX itself, and on Puna, in front of one model of rules.

OGX 1.5.0 (formerly Llama Stack) publishes its tests in its source distribution. They run in OGX's environment with
OGX's and OpenAI's clients against a server on a socket; the model behind both servers is `ogx_model.py`.

    python3.12 -m venv ENV && ENV/bin/pip install ogx==1.5.0 ogx-client==1.5.0 openai pytest pytest-asyncio \\
        pytest-timeout anthropic mcp langchain-openai langgraph faiss-cpu numpy chardet pypdf tiktoken neo4j
    pip download --no-deps --no-binary=:all: ogx==1.5.0 && tar xf ogx-1.5.0.tar.gz
    python benchmarks/ogx_suite.py --suite ogx-1.5.0 --ogx ENV/bin/python

OGX needs tiktoken's cl100k_base from the network before it starts; without one, TIKTOKEN_CACHE_DIR names a folder that
has it (the package litellm brings it along).

Two things are told to the suite, by a plugin that is this same file: it knows vector databases by their names and skips
the others', so the server's one is called faiss, OGX's default and what it runs with here; and it is asked for that one
only. Left out: what needs a key of somebody's service, guardrails (OGX has none of its own), images.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
FOLDERS = ("conversations", "files", "models", "inspect", "admin", "batches", "vector_io", "inference", "responses")
OUTCOMES = ("passed", "failed", "skipped")
MODEL_PORT, PORTS = 9901, {"ogx": 9902, "puna": 9903}
VECTOR_IO = "faiss"
PUNA = """
[server]
port = {port}
[storage]
database = "{folder}/stack.db"
[providers.openai]
type = "remote::openai"
url = "http://127.0.0.1:{model}/v1"
profile = "vllm"
[mcp]
allow = ["localhost", "127.0.0.0/8", "::1/128"]
[connectors.test-mcp-connector]
url = "http://localhost:5199/sse"
"""
OGX = """
version: 2
distro_name: suite
apis: [batches, file_processors, files, inference, responses, tool_runtime, vector_io]
providers:
  inference:
  - provider_id: openai
    provider_type: remote::openai
    config: {{api_key: none, base_url: "http://127.0.0.1:{model}/v1"}}
  vector_io:
  - provider_id: faiss
    provider_type: inline::faiss
    config: {{persistence: {{namespace: "vector_io::faiss", backend: kv}}}}
  files:
  - provider_id: files
    provider_type: inline::localfs
    config: {{storage_dir: "{folder}/files", metadata_store: {{table_name: files_metadata, backend: sql}}}}
  file_processors:
  - {{provider_id: pypdf, provider_type: "inline::pypdf"}}
  responses:
  - provider_id: builtin
    provider_type: inline::builtin
    config: {{persistence: {{responses: {{table_name: responses, backend: sql}}}}}}
  tool_runtime:
  - {{provider_id: file-search, provider_type: "inline::file-search"}}
  - {{provider_id: model-context-protocol, provider_type: "remote::model-context-protocol"}}
  batches:
  - provider_id: reference
    provider_type: inline::reference
    config: {{sqlstore: {{table_name: batches, backend: sql}}}}
storage:
  backends:
    kv: {{type: kv_sqlite, db_path: "{folder}/kv.db"}}
    sql: {{type: sql_sqlite, db_path: "{folder}/sql.db"}}
  stores:
    metadata: {{namespace: registry, backend: kv}}
    inference: {{table_name: inference_store, backend: sql}}
    conversations: {{table_name: openai_conversations, backend: sql}}
    prompts: {{table_name: prompts, backend: sql}}
    connectors: {{table_name: connectors, backend: sql}}
server: {{port: {port}}}
vector_stores:
  default_provider_id: faiss
  default_embedding_model: {{provider_id: openai, model_id: text-embedding-3-small, embedding_dimensions: 1536}}
connectors:
- {{connector_type: mcp, connector_id: test-mcp-connector, url: "http://localhost:5199/sse"}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=Path, required=True, help="folder of the unpacked source distribution of OGX")
    parser.add_argument("--ogx", type=Path, required=True, help="Python with ogx, its client and pytest")
    parser.add_argument("--puna", type=Path, default=Path(sys.executable), help="Python with puna")
    parser.add_argument("--servers", nargs="*", choices=PORTS, default=list(PORTS))
    parser.add_argument("--folders", nargs="*", choices=FOLDERS, default=FOLDERS, metavar="FOLDER")
    parser.add_argument("--match", default="", help="only tests of this expression (pytest -k)")
    parser.add_argument("--details", type=Path, help="file for every test's outcome and every failure's text, as JSON")
    parser.add_argument("--work", type=Path, help="folder for the servers' records and logs; by default one that goes")
    options = parser.parse_args()
    found: dict[str, dict[str, dict[str, tuple[str, str]]]] = {}
    with tempfile.TemporaryDirectory() as passing, serving_model(options.puna, Path(passing)):
        for server in options.servers:
            place = (options.work or Path(passing)) / server
            with serving(server, options, place) as url:
                found[server] = {part: run(part, url, options, place) for part in options.folders}
    print(table(found))
    if options.details:
        options.details.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({server: {p: counted(rows) for p, rows in parts.items()} for server, parts in found.items()}))


# Servers --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving_model(python: Path, folder: Path) -> Iterator[None]:
    command = [str(python), str(HERE / "ogx_model.py"), str(MODEL_PORT)]
    with process(command, folder / "model.log", f"http://127.0.0.1:{MODEL_PORT}/v1/models", {}):
        yield


@contextlib.contextmanager
def serving(server: str, options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The address of a server with nothing in its store."""
    folder.mkdir(parents=True)
    port, text = PORTS[server], {"ogx": OGX, "puna": PUNA}[server]
    config = folder / ("config.yaml" if server == "ogx" else "stack.toml")
    config.write_text(text.format(port=port, folder=folder, model=MODEL_PORT), encoding="utf-8")
    if server == "ogx":
        command = [str(options.ogx), "-m", "ogx.cli.ogx", "run", str(config), "--port", str(port), "--insecure"]
    else:
        command = [str(options.puna), "-m", "puna", "serve", "--config", str(config), "--quiet"]
    url = f"http://127.0.0.1:{port}"
    with process(command, folder / "server.log", f"{url}/v1/models", {"SQLITE_STORE_DIR": str(folder)}):
        yield url


@contextlib.contextmanager
def process(command: list[str], log: Path, ready: str, environment: dict[str, str]) -> Iterator[None]:
    """A server from when it answers until the block is left."""
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | environment)
        try:
            deadline = time.monotonic() + 120
            while not answers(ready):
                if child.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{' '.join(command)} did not start:\n{log.read_text(errors='replace')[-4000:]}")
                time.sleep(0.3)
            yield
        finally:
            child.terminate()
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


# The suite ------------------------------------------------------------------------------------------------------------


def run(part: str, url: str, options: argparse.Namespace, folder: Path) -> dict[str, tuple[str, str]]:
    """Outcome and, where it failed, text of every test of one folder."""
    report = folder / f"{part}.xml"
    command = [
        *(str(options.ogx), "-m", "pytest", "-q", "-p", "ogx_suite", "--timeout=120", f"--junitxml={report}"),
        *(f"tests/integration/{part}", f"--stack-config={url}", "--inference-mode=live"),
        *("--text-model=openai/gpt-4o", "--embedding-model=openai/text-embedding-3-small"),
        *("--embedding-dimension=1536", "-o", "junit_family=xunit1", "-k", options.match),
        "--ignore=tests/integration/vector_io/test_neo4j_graph_retrieval.py",
    ]
    environment = os.environ | {"PYTHONPATH": str(HERE), "OGX_SUITE_VECTOR_IO": VECTOR_IO}
    done = subprocess.run(command, cwd=options.suite, env=environment, capture_output=True, text=True, check=False)
    if not report.exists():
        raise SystemExit(f"The suite did not run:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rsplit('.', 1)[-1]}::{case.get('name')}"
        wrong = [child for child in case if child.tag in ("failure", "error")]
        if wrong:
            found[name] = ("failed", wrong[0].text or "")
        else:
            skips = [child for child in case if child.tag == "skipped"]
            found[name] = ("skipped", skips[0].get("message") or "") if skips else ("passed", "")
    return found


def counted(rows: dict[str, tuple[str, str]]) -> dict[str, int]:
    counts = Counter(outcome for outcome, _ in rows.values())
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def table(found: dict[str, dict[str, dict[str, tuple[str, str]]]]) -> str:
    """Passed, failed and skipped by folder and server, as Markdown."""
    head = ["folder", *(f"{server}: {' / '.join(OUTCOMES)}" for server in found)]
    rows = [head, ["---"] * len(head)]
    parts = next(iter(found.values()), {})
    for part in parts:
        rows.append([part, *(" / ".join(str(n) for n in counted(found[server][part]).values()) for server in found)])
    sums = [Counter() for _ in found]
    for total, server in zip(sums, found, strict=True):
        for part in parts:
            total.update(counted(found[server][part]))
    rows.append(["all", *(" / ".join(str(total[outcome]) for outcome in OUTCOMES) for total in sums)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


# The plugin, in the suite's own process -------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: Any) -> None:
    name, parametrize = os.environ.get("OGX_SUITE_VECTOR_IO"), metafunc.parametrize
    if not name:
        return

    def one(names: Any, values: Any, *others: Any, **named: Any) -> Any:
        if names == "vector_io_provider_id":
            values, named = [name], {**named, "ids": [f"vector_io={name}"]}
        return parametrize(names, values, *others, **named)

    metafunc.parametrize = one


def pytest_configure(config: Any) -> None:
    """The client's list of providers names the server's vector database as the suite knows it."""
    del config
    name = os.environ.get("OGX_SUITE_VECTOR_IO")
    if not name:
        return
    from ogx_client.api.providers_api import ProvidersApi

    listed = ProvidersApi.list

    def renamed(*arguments: Any, **named: Any) -> Any:
        rows = listed(*arguments, **named)
        for row in rows:
            if row.api == "vector_io":
                row.provider_id, row.provider_type = name, f"inline::{name}"
        return rows

    ProvidersApi.list = renamed


if __name__ == "__main__":
    main()
