"""What `puna serve` costs before any model does, beside OGX 1.5.0 in front of the same stand-in for a model's server.

- start: from the start of the process to the first 200 of /v1/health, and resident memory then, with one remote
  provider and no model; how many distributions the core install has besides torch's own.
- added: how much later a streamed token arrives through the server than from the stand-in itself (one stream, a token
  every 5 ms), and what a token costs when 500 come at once.
- streams: 100 streams at once, of 100 tokens each, one every 50 ms: is every event there, in its order?
- rates: requests per second of 1, 16 and 64 clients that each have one request under way, for chat, streamed chat and
  responses, of 16 words each. All servers are up at once and take turns; the stand-in's own rate is the ceiling.

OGX needs Python 3.12, and its pins fight ours, so it lives in `.benchmark-envs/ogx`, made at the first call by
`python3.12 -m venv` and pip (PUNA_OGX_PYTHON names another environment's Python). It runs as fast as it can be made to:
without records of chats and with errors alone in its log. Its responses need a vector store, which loads a tokenizer
from the network at start; no measured request uses that, so one of single bytes stands in where there is no network.

    python benchmarks/server.py
    python benchmarks/server.py --only rates --rounds 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import rivals
import traffic

CASES = ("start", "added", "streams", "rates")
OGX_VERSION = "1.5.0"
OVERRIDE = "PUNA_OGX_PYTHON"
KINDS = ("chat", "chat stream", "responses")
CONCURRENCY = (1, 16, 64)
USER = [{"role": "user", "content": "Say something."}]
PUNA = """
[providers.stub]
type = "remote::openai"
url = "http://127.0.0.1:{port}/v1"
profile = "vllm"
"""
OGX = """
version: 2
distro_name: benchmark
apis: [inference, responses, files, tool_runtime, vector_io]
providers:
  inference:
  - {{provider_id: stub, provider_type: "remote::vllm",
     config: {{base_url: "http://127.0.0.1:{port}/v1", api_token: x}}}}
  files:
  - {{provider_id: files, provider_type: "inline::localfs",
     config: {{storage_dir: "{folder}/files", metadata_store: {{table_name: files, backend: sql}}}}}}
  responses:
  - {{provider_id: builtin, provider_type: "inline::builtin",
     config: {{persistence: {{responses: {{table_name: responses, backend: sql,
                                          max_write_queue_size: 10000, num_writers: 4}}}}}}}}
  vector_io:
  - {{provider_id: faiss, provider_type: "inline::faiss",
     config: {{persistence: {{namespace: "vector_io::faiss", backend: kv}}}}}}
  tool_runtime:
  - {{provider_id: file-search, provider_type: "inline::file-search"}}
storage:
  backends:
    kv: {{type: kv_sqlite, db_path: "{folder}/kv.db"}}
    sql: {{type: sql_sqlite, db_path: "{folder}/sql.db"}}
  stores:
    metadata: {{namespace: registry, backend: kv}}
    inference: {{table_name: inference, backend: sql, enabled: false}}
    conversations: {{table_name: conversations, backend: sql}}
    prompts: {{table_name: prompts, backend: sql}}
    connectors: {{table_name: connectors, backend: sql}}
registered_resources: {{models: [], vector_stores: []}}
server: {{port: 8321}}
"""
OGX_START = """
import tiktoken
from tiktoken import registry
single = {bytes([i]): i for i in range(256)}
registry.ENCODINGS["cl100k_base"] = tiktoken.Encoding(
    "cl100k_base", pat_str=".+", mergeable_ranks=single, special_tokens={}
)
from ogx.cli.ogx import main
main()
"""
COUNT = """
import json, re, sys
from importlib.metadata import PackageNotFoundError, requires
from packaging.requirements import Requirement

def closure(name):
    found, open_ = set(), [(name, frozenset())]
    while open_:
        name, extras = open_.pop()
        name = re.sub(r"[-_.]+", "-", name).lower()
        if (name, extras) in found:
            continue
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        found.add((name, extras))
        for line in lines:
            asked = Requirement(line)
            if asked.marker is None or any(asked.marker.evaluate({"extra": extra}) for extra in (extras or {""})):
                open_.append((asked.name, frozenset(asked.extras)))
    return {name for name, _ in found}

print(json.dumps(sorted(closure(sys.argv[1]) - closure("torch"))))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=CASES, default=CASES, metavar="CASE", help=f"of {CASES}")
    parser.add_argument("--rounds", type=int, default=3, help="of `rates` and `added`")
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one rate")
    parser.add_argument("--alone", action="store_true", help="without OGX")
    arguments = parser.parse_args()
    names = ["puna"] if arguments.alone else ["puna", "ogx"]
    load, found = os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory() as folder, stand_in() as stub:
        for case in arguments.only:
            print(f"{case} ...", file=sys.stderr)
            found[case] = MEASURES[case](arguments, names, stub, Path(folder) / case)
    report(arguments, found, load)


# Processes ------------------------------------------------------------------------------------------------------------


def ogx_python() -> Path:
    """The Python of an environment with OGX; built at the first call, which takes some minutes."""
    if chosen := os.environ.get(OVERRIDE):
        return Path(chosen)
    folder = rivals.ENVIRONMENTS / "ogx"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        found = (shutil.which(f"python3.{minor}") for minor in (12, 13))
        # pyenv puts programs of these names into the path whether or not it has the version.
        base = next(
            (it for it in found if it and not subprocess.run([it, "-c", ""], capture_output=True).returncode), ""
        )
        if not base:
            raise SystemExit(f"OGX needs Python 3.12 or 3.13; name an environment that has it in {OVERRIDE}.")
        print(f"installing OGX in {folder} (once) ...", file=sys.stderr)
        subprocess.run([base, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", f"ogx=={OGX_VERSION}"]
        # What its providers for responses, files and vectors ask for beside the core.
        subprocess.run([*install, "faiss-cpu", "numpy", "chardet", "pypdf"], check=True, stdout=sys.stderr)
        ready.touch()
    return python


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def process(
    command: list[str], path: str, port: int, **settings: str
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A server, and the seconds from its process's start to its first 200."""
    environment = {**os.environ, **settings}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            while not answers(port, path):
                if running.poll() is not None or time.perf_counter() - begun > 120:
                    log.seek(0)
                    raise SystemExit(f"{command[:3]} did not start:\n{log.read().decode()[-3000:]}")
                time.sleep(0.002)
            yield running, time.perf_counter() - begun
        finally:
            running.terminate()
            running.wait(30)


def answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


@contextmanager
def stand_in() -> Iterator[int]:
    port = free_port()
    with process([sys.executable, traffic.__file__, str(port)], "/v1/models", port):
        yield port


@contextmanager
def server(name: str, stub: int, folder: Path) -> Iterator[tuple[int, int, float]]:
    """A contender: its port, its process, and how long it took to be ready.

    Args:
        name: puna or ogx.
        stub: the stand-in's port.
        folder: for its settings and records; it must not exist.
    """
    folder.mkdir(parents=True)
    port = free_port()
    settings = folder / "settings"
    settings.write_text((PUNA if name == "puna" else OGX).format(port=stub, folder=folder))
    if name == "puna":
        command = [str(Path(sys.executable).parent / "puna"), "serve", "--config", str(settings), "--quiet"]
        command += ["--state", str(folder / "state"), "--port", str(port)]
    else:
        start = folder / "start.py"
        start.write_text(OGX_START)
        command = [str(ogx_python()), str(start), "run", str(settings), "--insecure", "--port", str(port)]
    with process(command, "/v1/health", port, OGX_LOGGING="all=error") as (running, seconds):
        yield port, running.pid, seconds


def resident_mb(pid: int) -> float:
    """Megabytes (10^6 bytes) in memory of a process and all that it has started (Linux)."""
    total, open_ = 0, [pid]
    while open_:
        pid = open_.pop()
        total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir():
            open_ += map(int, (task / "children").read_text().split())
    return total * os.sysconf("SC_PAGE_SIZE") / 1e6


def distributions(name: str) -> list[str]:
    python = sys.executable if name == "puna" else str(ogx_python())
    done = subprocess.run([python, "-c", COUNT, name], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


# Measurements ---------------------------------------------------------------------------------------------------------


def chat(model: str, stream: bool = False) -> bytes:
    return traffic.request("/v1/chat/completions", {"model": model, "messages": USER, "stream": stream})


def responses(model: str, stream: bool = False) -> bytes:
    return traffic.request("/v1/responses", {"model": model, "input": "Say something.", "stream": stream})


def start(arguments: argparse.Namespace, names: list[str], stub: int, folder: Path) -> dict[str, Any]:
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for name in names:  # once for the files, which then lie in memory for every start
        with server(name, stub, folder / f"{name}-first"):
            pass
    for number in range(arguments.starts):
        for name in names:
            with server(name, stub, folder / f"{name}-{number}") as (_, pid, seconds):
                rows[name].append({"ready s": seconds, "resident MB": resident_mb(pid)})
    # Besides itself.
    return {name: {**medians(rows[name]), "distributions": len(distributions(name)) - 1} for name in names}


def added(arguments: argparse.Namespace, names: list[str], stub: int, folder: Path) -> dict[str, Any]:
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ("stand-in", *names)}
    with ExitStack() as stack:
        ports = {name: stack.enter_context(server(name, stub, folder / name))[0] for name in names}
        for _ in range(arguments.rounds):
            for name, port in {"stand-in": stub, **ports}.items():
                prefix = "" if name == "stand-in" else "stub/"
                rows[name].append(asyncio.run(token(port, prefix)))
    found = {name: medians(row) for name, row in rows.items()}
    for name in names:
        for key in ("paced ms", "burst ms"):
            found[name][f"added, {key}"] = found[name][key] - found["stand-in"][key]
    return found


async def token(port: int, prefix: str) -> dict[str, float]:
    """A token's delay in milliseconds where 300 come one every 5 ms, and its cost where 500 come at once."""
    await traffic.listen(port, chat(f"{prefix}words-16", True))
    delays, _ = await traffic.listen(port, chat(f"{prefix}paced-300-5", True))
    bursts = []
    for _ in range(10):
        client, begun = await traffic.connect(port), time.perf_counter()
        await client.ask(chat(f"{prefix}words-500", True))
        bursts.append((time.perf_counter() - begun) / 500 * 1e3)
        client.transport.close()
    return {"paced ms": statistics.median(delays), "burst ms": statistics.median(bursts)}


def streams(arguments: argparse.Namespace, names: list[str], stub: int, folder: Path) -> dict[str, Any]:
    del arguments
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        ports = {name: stack.enter_context(server(name, stub, folder / name))[0] for name in names}
        for name, port in ports.items():
            for kind, make in (("chat", chat), ("responses", responses)):
                found[f"{name} {kind}"] = asyncio.run(together(port, make("stub/paced-100-50", True)))
    return found


async def together(port: int, sent: bytes) -> dict[str, float]:
    """100 streams at once: pieces lost, doubled or out of their order, streams without an end, and delays in ms."""
    answers = await asyncio.gather(*(traffic.listen(port, sent) for _ in range(100)))
    numbers = [traffic.deltas(whole) for _, whole in answers]
    delays = sorted(delay for found, _ in answers for delay in found)
    return {
        "lost": sum(len(set(range(100)) - set(found)) for found in numbers),
        "out of order": sum(found != sorted(set(found)) for found in numbers),
        "without an end": sum(b"[DONE]" not in whole and b"response.completed" not in whole for _, whole in answers),
        "delay p50 ms": delays[len(delays) // 2],
        "delay p99 ms": delays[len(delays) * 99 // 100],
    }


def rates(arguments: argparse.Namespace, names: list[str], stub: int, folder: Path) -> dict[str, Any]:
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ("stand-in", *names)}
    with ExitStack() as stack:
        started = {name: stack.enter_context(server(name, stub, folder / name)) for name in names}
        for number in range(arguments.rounds):
            for name in rows:
                rows[name].append({})
            for kind in KINDS:
                for concurrency in CONCURRENCY:
                    order = list(rows) if number % 2 else list(reversed(rows))
                    for name in order:
                        if name == "stand-in" and kind == "responses":
                            continue
                        sent = asked(kind, "" if name == "stand-in" else "stub/")
                        port, seconds = (stub, 0.5) if name == "stand-in" else (started[name][0], arguments.seconds)
                        rate = asyncio.run(traffic.rate(port, sent, concurrency, seconds))
                        rows[name][-1][f"{kind} {concurrency}"] = rate
        resident = {name: {"resident MB after": resident_mb(pid)} for name, (_, pid, _) in started.items()}
    return {name: {**medians(row), **resident.get(name, {})} for name, row in rows.items()}


def asked(kind: str, prefix: str) -> bytes:
    model = f"{prefix}words-16"
    return responses(model) if kind == "responses" else chat(model, kind == "chat stream")


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


MEASURES = {"start": start, "added": added, "streams": streams, "rates": rates}


# Report ---------------------------------------------------------------------------------------------------------------


def report(arguments: argparse.Namespace, found: dict[str, Any], load: float) -> None:
    """Tables of medians, the goals, and one line of JSON."""
    from puna.base.device import describe_machine

    for case, rows in found.items():
        print(f"\n{case}\n")
        for name, row in rows.items():
            print(f"{name:16}" + ", ".join(f"{key} {value:,.4g}" for key, value in row.items()))
    goals = goals_of(found)
    print()
    for name, (value, goal, most) in goals.items():
        met = value <= goal if most else value >= goal
        print(f"{name:36}{value:10.3f}   goal {'at most' if most else 'at least'} {goal:g}{'' if met else '  missed'}")
    print(
        json.dumps(
            {
                "question": "what does the server cost before any model does?",
                "ours": {case: rows.get("puna", rows) for case, rows in found.items()},
                "rivals": {case: rows["ogx"] for case, rows in found.items() if "ogx" in rows},
                "ratios": {name: round(value, 3) for name, (value, _, _) in goals.items() if "/" in name},
                "limit": {case: rows["stand-in"] for case, rows in found.items() if "stand-in" in rows},
                "machine": describe_machine(),
                "rounds": arguments.rounds,
                "load": [round(load, 2), round(os.getloadavg()[0], 2)],
            }
        )
    )


def goals_of(found: dict[str, Any]) -> dict[str, tuple[float, float, bool]]:
    """name -> the figure, the goal, and whether it is the most that may be."""
    goals: dict[str, tuple[float, float, bool]] = {}
    if ours := found.get("start", {}).get("puna"):
        goals["ready, seconds"] = (ours["ready s"], 1.5, True)
        goals["resident, MB"] = (ours["resident MB"], 120, True)
        goals["distributions besides torch's"] = (ours["distributions"], 30, True)
    if ours := found.get("added", {}).get("puna"):
        goals["added to a paced token, ms"] = (ours["added, paced ms"], 1, True)
        goals["added to a token of a burst, ms"] = (ours["added, burst ms"], 1, True)
    for name, row in found.get("streams", {}).items():
        if name.startswith("puna"):
            goals[f"events lost or displaced, {name[5:]}"] = (row["lost"] + row["out of order"], 0, True)
    rates = found.get("rates", {})
    for name, value in rates.get("puna", {}).items():
        if (theirs := rates.get("ogx", {}).get(name)) and not name.startswith("resident"):
            goals[f"puna / ogx, {name}"] = (value / theirs, 2, False)
    return goals


if __name__ == "__main__":
    main()
