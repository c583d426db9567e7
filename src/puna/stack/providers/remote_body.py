"""What is sent to a server with OpenAI's API, in the form and with the settings that its profile says it takes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from puna.base.config import from_dict
from puna.base.errors import ConfigError, near
from puna.core.chat import Message
from puna.core.completion import Constraint, SamplingParams
from puna.stack.conversion import OPEN_END
from puna.stack.errors import invalid
from puna.stack.providers.provider import Ask

# Settings that are sent where they differ from doing nothing.
_OPTIONAL = (
    *("top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "seed", "n"),
    "logprobs",
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a kind of server takes; see `profiles.toml`.

    Attributes:
        name: of the row.
        same: settings that it takes under our name.
        renamed: our name -> its name.
        forms: kind of constraint -> where its value goes.
        limit: its name of `max_tokens`.
        raw: whether it continues raw prompts.
        tool_choice: whether it obeys one.
        rerank: path of its ranking; "" for none.
    """

    name: str
    same: tuple[str, ...]
    limit: str
    raw: bool
    tool_choice: bool
    rerank: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    forms: Mapping[str, str] = field(default_factory=dict)

    @property
    def features(self) -> frozenset[str]:
        """What `ModelInfo.features` says of its models."""
        names = {name for name in ("seed", "logprobs") if name in self.same}
        return frozenset(names | {"tools"} | self.forms.keys())


@cache
def _profiles() -> Mapping[str, Profile]:
    text = resources.files("puna.stack.providers").joinpath("profiles.toml").read_text(encoding="utf-8")
    return {name: from_dict(Profile, {"name": name, **row}) for name, row in tomllib.loads(text).items()}


def profile(name: str) -> Profile:
    """A profile by its name.

    Raises:
        ConfigError: there is none.
    """
    known = _profiles()
    if name not in known:
        raise ConfigError(f"There is no profile {name!r}.", hint=near(name, known))
    return known[name]


def chat_body(ask: Ask, profile: Profile) -> dict[str, Any]:
    """The body of a chat request.

    Raises:
        ApiError: 400, for a setting that the server does not take.
    """
    body = _common(ask, profile)
    body["messages"] = [_message(message) for message in ask.messages]
    if ask.params.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": ask.params.logprobs}
    if ask.tools and ask.params.tool_choice != "none":
        body["tools"] = [tool.to_json() for tool in ask.tools]
        body |= _choice(ask.params.tool_choice, profile)
    return body


def raw_body(ask: Ask, profile: Profile) -> dict[str, Any]:
    """The body of a request that continues a text or token ids."""
    if not profile.raw:
        raise invalid(
            f"A server of the kind {profile.name} answers conversations, and continues no raw text.", "prompt"
        )
    body = _common(ask, profile)
    body["prompt"] = ask.prompt if isinstance(ask.prompt, str) else list(ask.prompt)
    if profile.limit in body:
        body["max_tokens"] = body.pop(profile.limit)
    if ask.params.logprobs is not None:
        body["logprobs"] = ask.params.logprobs
    return body


def _common(ask: Ask, profile: Profile) -> dict[str, Any]:
    params, idle = ask.params, SamplingParams()
    body: dict[str, Any] = {
        "model": ask.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": params.temperature,
        "top_p": params.top_p,
    }
    if params.max_tokens < OPEN_END:
        body[profile.limit] = params.max_tokens
    if params.stop:
        body["stop"] = list(params.stop)
    if params.prompt_logprobs:
        raise _refused("logprobs of a prompt", profile, "logprobs")
    for name in _OPTIONAL:
        value = getattr(params, name)
        if value == getattr(idle, name):
            continue
        if name not in profile.same and name not in profile.renamed:
            raise _refused(name, profile, name)
        if name == "logit_bias":
            value = {str(id): bias for id, bias in value.items()}
        if name != "logprobs":  # chat and raw requests spell it each in its way
            body[profile.renamed.get(name, name)] = value
    if params.constraint is not None:
        _put_form(body, params.constraint, profile)
    return body


def _refused(what: str, profile: Profile, param: str) -> Exception:
    return invalid(
        f"A server of the kind {profile.name} does not take {what}. Leave it out, or choose another model.",
        param,
        "unsupported_parameter",
    )


def _put_form(body: dict[str, Any], constraint: Constraint, profile: Profile) -> None:
    place = profile.forms.get(constraint.kind)
    if place is None:
        raise _refused(f"the form {constraint.kind}", profile, "response_format")
    if place == "response_format":
        schema = {"name": "answer", "schema": constraint.value, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif place == "typed_format":
        kind = {"json_schema": ("json", "schema"), "regex": ("regex", "regex")}[constraint.kind]
        body["response_format"] = {"type": kind[0], kind[1]: constraint.value}
    else:
        *outer, last = place.split(".")
        inner = body
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = constraint.value


def _choice(choice: str, profile: Profile) -> dict[str, Any]:
    if choice == "auto":
        return {}
    if not profile.tool_choice:
        raise _refused("a tool_choice", profile, "tool_choice")
    named = {"type": "function", "function": {"name": choice}}
    return {"tool_choice": "required" if choice == "required" else named}


def _message(message: Message) -> dict[str, Any]:
    """OpenAI's form, without what only Llama's chat format knows."""
    data = message.to_json()
    data.pop("end_of_turn", None)
    data.pop("name", None)
    if message.tool_calls and not message.content:
        data["content"] = None
    return data
