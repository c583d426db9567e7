"""Encoding speed beside tiktoken (with Meta's own expression) and tokenizers, with one vocabulary and equal ids.

Every round runs each contender once on each text, in turns, so that a busy moment strikes all; medians are compared.
Two shapes of work: one text of megabytes, and thousands of short strings, where the cost of a call shows.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import tiktoken
import tokenizers

from puna.tokenizer import Tokenizer
from puna.tokenizer.bpe import META_PATTERN

SHARED = Path(__file__).parents[1].parent / "shared/data"
LARGE_BYTES = 2_000_000
SHORT_STRINGS = 20_000
LIMIT = 0.9
Encode = Callable[[list[str]], list[list[int]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vocabulary", nargs="?", type=Path, help="tokenizer.model, tokenizer.json or a folder")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    texts = workloads()
    tokenizer = vocabulary(arguments.vocabulary)
    contenders = make_contenders(tokenizer)
    speeds: dict[str, dict[str, float]] = {}
    for name, work in texts.items():
        expected = contenders["tiktoken"](work)
        for who, encode in contenders.items():
            assert encode(work) == expected, f"{who} gives other ids on {name}"
        speeds[name] = race(contenders, work, arguments.rounds)
    print(f"{tokenizer}, MB/s, median of {arguments.rounds} rounds\n")
    print(f"{'':24}" + "".join(f"{who:>16}" for who in contenders))
    for name, row in speeds.items():
        print(f"{name:24}" + "".join(f"{row[who]:16.2f}" for who in contenders))
    ratios = {name: round(row["puna"] / row["tiktoken"], 2) for name, row in speeds.items()}
    result = {
        "question": "encoding speed, MB/s",
        "ours": {name: round(row["puna"], 2) for name, row in speeds.items()},
        "rivals": {
            who: {name: round(row[who], 2) for name, row in speeds.items()} for who in contenders if who != "puna"
        },
        "ratios": {
            "puna / tiktoken": ratios,
            "puna / tokenizers": {name: round(row["puna"] / row["tokenizers"], 2) for name, row in speeds.items()},
        },
        "limit": {"puna / tiktoken, least": LIMIT, "kept": min(ratios.values()) >= LIMIT},
    }
    print(json.dumps(result))


def vocabulary(path: Path | None) -> Tokenizer:
    """The given tokenizer, or Llama 3's where it lies beside the repository, or one trained on Python's library."""
    default = SHARED / "llama3/tokenizer.model"
    if path is None and not default.exists():
        print("No vocabulary was given: training one of 32,768 tokens.", file=sys.stderr)
        return Tokenizer.train(library(20_000_000), 32_768)
    return Tokenizer.load(path or default)


def make_contenders(tokenizer: Tokenizer) -> dict[str, Encode]:
    rival = tiktoken.Encoding(
        "meta", pat_str=META_PATTERN, mergeable_ranks=dict(tokenizer.ranks), special_tokens=dict(tokenizer.special)
    )
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        other = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    return {
        "puna": lambda texts: [tokenizer.encode(text) for text in texts],
        "tiktoken": lambda texts: [rival.encode(text, disallowed_special=()) for text in texts],
        "tokenizers": lambda texts: [other.encode(text, add_special_tokens=False).ids for text in texts],
    }


def race(contenders: dict[str, Encode], texts: list[str], rounds: int) -> dict[str, float]:
    """MB/s of each contender."""
    times: dict[str, list[float]] = {who: [] for who in contenders}
    for number in range(rounds):
        order = list(contenders)
        for who in order[number % len(order) :] + order[: number % len(order)]:
            begin = time.perf_counter()
            contenders[who](texts)
            times[who].append(time.perf_counter() - begin)
    size = sum(len(text.encode()) for text in texts) / 1e6
    return {who: size / statistics.median(seconds) for who, seconds in times.items()}


def workloads() -> dict[str, list[str]]:
    code = "\n".join(library(LARGE_BYTES))
    works = {"code, one text": [code]}
    declarations = sorted((SHARED / "udhr").glob("*.html"))
    if declarations:
        plain = [html.unescape(re.sub(r"<[^>]*>", " ", path.read_text(encoding="utf-8"))) for path in declarations]
        works["70 languages, one text"] = ["\n".join(plain)]
    lines = [line for line in code.splitlines() if line.strip()]
    works["code, lines"] = lines[:SHORT_STRINGS]
    words = [" ".join(line.split()[:3]) for line in lines]
    works["code, 3 words"] = words[:SHORT_STRINGS]
    return works


def library(size: int) -> list[str]:
    """Modules of the running Python's library, about `size` bytes."""
    texts: list[str] = []
    for path in sorted(Path(json.__file__).parents[1].rglob("*.py")):
        if "site-packages" in path.parts:
            continue
        texts.append(path.read_text(encoding="utf-8", errors="replace"))
        size -= path.stat().st_size
        if size <= 0:
            break
    return texts


if __name__ == "__main__":
    main()
