"""A model of rules behind OpenAI's API: what two servers are compared in front of, neither with the better model.

It answers a fixed handful of questions, repeats what it was told, calls those tools whose names stand in the question
with arguments taken from it (one that wants an id of another tool's waits for it), and fills a JSON schema.
Its tokens are words. Embeddings are counts of words and of their beginnings, by hash.

    python benchmarks/ogx_model.py 9901

Left out: everything that needs understanding. Images are looked at only for whether they can be read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import math
import re
import struct
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

CHAT, EMBEDDING, DIMENSIONS = "gpt-4o", "text-embedding-3-small", 1536
KNOWN = (
    ("planet do humans live", "Earth"),
    ("rings around it", "Saturn"),
    ("capital of france", "Paris"),
    ("capital of germany", "Berlin"),
    ("capital of italy", "Rome"),
    ("sun in latin", "Sol"),
    ("us captial", "Washington"),
    ("wrote the book '1984'", "George Orwell"),
    ("first moon landing", "1969"),
    ("hello' in spanish", "Hola"),
    ("violets are", "Violets are blue, sugar is sweet, and so are you."),
    ("jordan is born in", "1963"),
)
SEARCHES = ("file_search", "knowledge_search", "web_search")
LONG = ("essay", "story", "novel", "poem")
PLACE = re.compile(r"\b(?:in|for|or|and|of) ((?:[A-Z]\w+)(?: [A-Z]\w+)*(?:, [A-Z]{2})?)")
QUOTED = re.compile(r"'([^' ]+)'")
PLAIN_WORDS = frozenset(("get", "check", "capture", "search", "list", "current", "the"))
JSON = dict[str, Any]

app = FastAPI()
_numbers = itertools.count()


# What it says ---------------------------------------------------------------------------------------------------------


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(str(part.get("text") or "") for part in content or () if isinstance(part, Mapping))


def reply(body: Mapping[str, Any]) -> tuple[str, list[JSON]]:
    """The text and the calls that follow a conversation."""
    messages = body["messages"]
    at = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=0)
    question = text_of(messages[at].get("content")) if messages else ""
    results = [text_of(message.get("content")) for message in messages[at:] if message["role"] == "tool"]
    made = [call["function"] for message in messages[at:] for call in message.get("tool_calls") or ()]
    choice = body.get("tool_choice", "auto")
    if body.get("tools") and choice != "none":
        calls = choose(body["tools"], question, made, results, choice)
        if body.get("parallel_tool_calls") is False or "one tool call per step" in question:
            calls = calls[:1]
        if calls:
            return "", calls
    form = body.get("response_format") or {}
    whole = " ".join(text_of(message.get("content")) for message in messages)
    if form.get("type") == "json_schema":
        return json.dumps(filled(form["json_schema"].get("schema") or {}, whole, question)), []
    if form.get("type") == "json_object":
        return json.dumps({"capital": known(question) or "unknown", "answer": said(messages, question, results)}), []
    return said(messages, question, results), []


def known(question: str) -> str:
    return next((answer for words, answer in KNOWN if words in question.lower()), "")


def said(messages: Sequence[Mapping[str, Any]], question: str, results: Sequence[str]) -> str:
    if results:
        return f"You asked: {question[:600]} This is what I found: {' '.join(results)[:4000]}"
    before = [text_of(message.get("content")) for message in messages[:-1] if message["role"] == "assistant"]
    if before and "previous response" in question:
        return before[-1].upper() if "all caps" in question else f"My previous response was: {before[-1]}"
    if any(word in question.lower() for word in LONG):
        return " ".join(f"This is sentence {i} of a long text." for i in range(1, 101))
    if "exact same sentence" in question:
        return question.split(":", 1)[-1].strip()
    if answer := known(question):
        return f"The answer is {answer}."
    told = " ".join(text_of(message.get("content")) for message in messages)
    return f"So far I was told this: {told[-3000:]}"


# Tools ----------------------------------------------------------------------------------------------------------------


def choose(
    tools: Sequence[Mapping[str, Any]], question: str, made: Sequence[Mapping[str, Any]], results: Sequence[str],
    choice: Any,
) -> list[JSON]:  # fmt: skip
    """The calls of the next step."""
    functions = [tool["function"] for tool in tools if tool.get("type") == "function"]
    named = choice["function"]["name"] if isinstance(choice, Mapping) and "function" in choice else None
    done = {(call["name"], call["arguments"]) for call in made}
    calls: list[JSON] = []
    for function in functions:
        if (named is not None and function["name"] != named) or (
            named is None and not wanted(function["name"], question)
        ):
            continue
        for arguments in argued(function.get("parameters") or {}, question, made, results):
            written = json.dumps(arguments)
            again = function["name"] in SEARCHES and any(name == function["name"] for name, _ in done)
            if (function["name"], written) not in done and not again:
                calls.append({"name": function["name"], "arguments": written})
    if not calls and not made and (named is not None or choice == "required"):
        function = next((one for one in functions if one["name"] == named), functions[0])
        arguments = filled(function.get("parameters") or {}, question, question)
        calls.append({"name": function["name"], "arguments": json.dumps(arguments)})
    return calls


def wanted(name: str, question: str) -> bool:
    words = [word for word in name.lower().split("_") if word not in PLAIN_WORDS]
    return name in SEARCHES or (bool(words) and all(word[:6] in question.lower() for word in words))


def argued(
    schema: Mapping[str, Any], question: str, made: Sequence[Mapping[str, Any]], results: Sequence[str]
) -> list[JSON]:
    """Arguments for each call of a tool: several where the question names several places, none where an id lacks."""
    properties = schema.get("properties") or {}
    required = schema.get("required") or list(properties)
    fixed: JSON = {}
    for name in required:
        prompt = properties.get(name) or {}
        if name.endswith("_id"):
            source = [result for call, result in zip(made, results, strict=False) if call["name"] == f"get_{name}"]
            if not source:
                return []
            fixed[name] = re.sub(r"[^\w-]", "", source[-1])
        elif name != "location":
            fixed[name] = value_of(name, prompt, question)
    if "location" not in required:
        return [fixed]
    places = list(dict.fromkeys(PLACE.findall(question)))
    return [{**fixed, "location": place} for place in places or ["here"]]


def value_of(name: str, schema: Mapping[str, Any], question: str) -> Any:
    if schema.get("type", "string") != "string" or "enum" in schema:
        return filled(schema, question, question, name)
    quoted = [(found[1], found.start()) for found in QUOTED.finditer(question)]
    if name == "filename":
        quoted = [pair for pair in quoted if "." in pair[0]]
    if quoted:
        at = question.lower().find(re.sub(r"_?name$", "", name.lower()))
        return min(quoted, key=lambda pair: abs(pair[1] - at))[0]
    if name == "liquid_name":
        return next(iter(re.findall(r"point of (\w+)", question)), "water")
    return question


def filled(schema: Mapping[str, Any], told: str, question: str, name: str = "") -> Any:
    """A value of a schema, with names and numbers of the prompt where they may stand."""
    root = schema.get("$defs") or schema.get("definitions") or {}
    return _filled(schema, root, iter(re.findall(r"\d+", told)), told, question, name)


def _filled(schema: Any, root: Any, numbers: Any, told: str, question: str, name: str) -> Any:
    if "$ref" in schema:
        schema = root[schema["$ref"].rsplit("/", 1)[-1]]
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return _filled(schema[word][0], root, numbers, told, question, name)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        inner = schema.get("properties") or {}
        return {key: _filled(value, root, numbers, told, question, key) for key, value in inner.items()}
    if kind == "array":
        return [_filled(schema.get("items") or {}, root, numbers, told, question, name)]
    if kind in ("integer", "number"):
        number = next(numbers, "7")
        return int(number) if kind == "integer" else float(number) + 0.5
    if kind in ("boolean", "null"):
        return True if kind == "boolean" else None
    return noun(name, told, question)


def noun(name: str, told: str, question: str) -> str:
    """A text for a property: what is known, a capitalised word, a number for what is a year."""
    if answer := known(question):
        return answer
    if "year" in name:
        years = re.findall(r"\b(?:19|20)\d\d\b", told)
        return years[-1 if "retired" in name else 0] if years else "2000"
    names = re.findall(r"\b([A-Z][a-z]+ [A-Z][a-z]+)\b", told) or re.findall(r"\b([A-Z][a-z]+)\b", told) or ["Name"]
    parts = names[0].split()
    return parts[0] if name.startswith("first") else parts[-1] if name.startswith("last") else names[0]


# The protocol ---------------------------------------------------------------------------------------------------------


def tokens(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


def cut(text: str, body: Mapping[str, Any]) -> tuple[list[str], str]:
    """The tokens of an answer within its limits, and why it ends."""
    stops = body.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop, 1)[0]
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    whole = tokens(text)
    return (whole[:most], "length") if most and len(whole) > most else (whole, "stop")


def refused(message: str, code: str, param: str | None = None) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return JSONResponse({"error": error}, 404 if code == "model_not_found" else 400)


def fault(body: Mapping[str, Any]) -> JSONResponse | None:
    """What OpenAI's server would refuse: another model, an image that cannot be read."""
    if body.get("model") not in (CHAT, EMBEDDING):
        return refused(f"The model `{body.get('model')}` does not exist.", "model_not_found", "model")
    for message in body.get("messages") or ():
        for part in message.get("content") or () if not isinstance(message.get("content"), str) else ():
            url = (part.get("image_url") or {}).get("url", "") if part.get("type") == "image_url" else ""
            try:
                if url.startswith("data:"):
                    base64.b64decode(url.split(",", 1)[-1], validate=True)
            except ValueError:
                return refused("The image is no base64.", "invalid_base64_image", "messages")
    return None


def logprob(token: str, top: int) -> JSON:
    shown = {"token": token, "logprob": -0.1, "bytes": list(token.encode())}
    others = [token, *(f" other{i}" for i in range(1, top))][:top]
    return shown | {
        "top_logprobs": [
            {"token": other, "logprob": -0.1 - i, "bytes": list(other.encode())} for i, other in enumerate(others)
        ]
    }


def envelope(body: Mapping[str, Any], kind: str, choices: list[JSON], usage: JSON | None = None) -> JSON:
    made = {"id": f"chatcmpl-{next(_numbers)}", "object": kind, "created": int(time.time()), "model": body["model"]}
    return {**made, "choices": choices, **({"usage": usage} if usage else {})}


def used(prompt: str, count: int) -> JSON:
    read = max(len(tokens(prompt)), 1)
    return {"prompt_tokens": read, "completion_tokens": count, "total_tokens": read + count}


def lines(body: Mapping[str, Any], kind: str, parts: list[list[JSON]], usage: JSON, pause: float) -> Response:
    async def written() -> AsyncIterator[str]:
        for choices in parts:
            yield f"data: {json.dumps(envelope(body, kind, choices))}\n\n"
            await asyncio.sleep(pause)
        if (body.get("stream_options") or {}).get("include_usage"):
            yield f"data: {json.dumps(envelope(body, kind, [], usage))}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(written(), media_type="text/event-stream")


@app.get("/v1/models")
async def models() -> JSON:
    rows = [{"id": id, "object": "model", "created": 1, "owned_by": "rules"} for id in (CHAT, EMBEDDING)]
    return {"object": "list", "data": rows}


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    body = await request.json()
    if (wrong := fault(body)) is not None:
        return wrong
    text, functions = reply(body)
    words, reason = cut(text, body)
    calls = [{"id": f"call_{next(_numbers)}", "type": "function", "function": one} for one in functions]
    reason = "tool_calls" if calls else reason
    prompt = json.dumps(body["messages"])
    usage = used(prompt, max(len(words), 1) * (body.get("n") or 1))
    top = body.get("top_logprobs") or 0
    pause = 0.02 if len(words) > 200 else 0.0
    count = range(body.get("n") or 1)
    if not body.get("stream"):
        await asyncio.sleep(pause * len(words))
        message = {"role": "assistant", "content": "".join(words) or None} | ({"tool_calls": calls} if calls else {})
        shown = {"content": [logprob(word, top) for word in words]} if body.get("logprobs") else None
        choices = [{"index": i, "message": message, "finish_reason": reason, "logprobs": shown} for i in count]
        return JSONResponse(envelope(body, "chat.completion", choices, usage))

    def part(delta: JSON, ended: str | None = None, word: str = "") -> list[JSON]:
        shown = {"content": [logprob(word, top)]} if word and body.get("logprobs") else None
        return [{"index": i, "delta": delta, "finish_reason": ended, "logprobs": shown} for i in count]

    parts = [part({"role": "assistant", "content": ""}), *(part({"content": word}, word=word) for word in words)]
    for i, call in enumerate(calls):
        arguments = call["function"]["arguments"]
        begun = {**call, "index": i, "function": {"name": call["function"]["name"], "arguments": ""}}
        pieces = [arguments[at : at + 12] for at in range(0, len(arguments), 12)]
        parts += [part({"tool_calls": [begun]})]
        parts += [part({"tool_calls": [{"index": i, "function": {"arguments": piece}}]}) for piece in pieces]
    return lines(body, "chat.completion.chunk", [*parts, part({}, reason)], usage, pause)


@app.post("/v1/completions")
async def completions(request: Request) -> Response:
    body = await request.json()
    if (wrong := fault(body)) is not None:
        return wrong
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    prompts = [prompt if isinstance(prompt, str) else str(prompt) for prompt in prompts]
    answers = [cut(said([{"role": "user", "content": p}], p, ()), body) for p in prompts]
    usage = used(" ".join(prompts), sum(len(words) for words, _ in answers))

    def choice(i: int, words: list[str], reason: str | None) -> JSON:
        top = body.get("logprobs")
        shown = None
        if isinstance(top, int) and not isinstance(top, bool):
            offsets = list(itertools.accumulate((len(word) for word in words), initial=0))[:-1]
            likely = [{word: -0.1} | {f" other{n}": -n for n in range(1, top)} for word in words]
            sure = [-0.1] * len(words)
            shown = {"tokens": words, "token_logprobs": sure, "top_logprobs": likely, "text_offset": offsets}
        return {"index": i, "text": "".join(words), "finish_reason": reason, "logprobs": shown}

    if body.get("stream"):
        parts = [[choice(i, [word], None)] for i, (words, _) in enumerate(answers) for word in words]
        ends = [[choice(i, [], reason)] for i, (_, reason) in enumerate(answers)]
        return lines(body, "text_completion", [*parts, *ends], usage, 0.0)
    choices = [choice(i, words, reason) for i, (words, reason) in enumerate(answers)]
    return JSONResponse(envelope(body, "text_completion", choices, usage))


def vector(text: str, size: int) -> list[float]:
    row = [0.0] * size
    for word in re.findall(r"\w+", text.lower()):
        for part, weight in ((word, 1.0), (word[:4], 0.5)):
            row[int.from_bytes(hashlib.blake2b(part.encode(), digest_size=4).digest(), "big") % size] += weight
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row] if length else [1.0, *row[1:]]


@app.post("/v1/embeddings")
async def embeddings(request: Request) -> Response:
    body = await request.json()
    if (wrong := fault(body)) is not None:
        return wrong
    given = body["input"]
    texts = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given
    if not texts or any(text in ("", []) for text in texts):
        return refused("The input is empty.", "invalid_input", "input")
    data: list[JSON] = []
    for i, text in enumerate(texts):
        row: Any = vector(text if isinstance(text, str) else str(text), body.get("dimensions") or DIMENSIONS)
        if body.get("encoding_format") == "base64":
            row = base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
        data.append({"object": "embedding", "index": i, "embedding": row})
    count = sum(len(tokens(str(text))) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return JSONResponse({"object": "list", "data": data, "model": body["model"], "usage": usage})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
