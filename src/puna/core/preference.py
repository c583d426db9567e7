"""`Preference`: two answers to one conversation, and which of them is better.

The noun holds what is common to reward models, direct preference optimisation and rejection sampling. It reads both
public forms and writes the first: `prompt`, `chosen` and `rejected` as lists of messages, or `chosen` and `rejected` as
whole conversations that begin alike. Whether it makes sense as training data is judged in `puna.align.preferences`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from puna.base.errors import InputError
from puna.core.chat import Message, ToolSpec, circumstances

Strength = Literal["significantly", "better", "slightly", "negligibly"]
STRENGTHS: tuple[str, ...] = get_args(Strength)
# Llama 3's paper (arXiv 2407.21783, section 4.2.1) has "marginally" where Llama 2's (2307.09288) has "negligibly".
_OTHER_NAMES = {"marginally": "negligibly", "unsure": "negligibly"}


@dataclass(frozen=True, slots=True)
class Preference:
    """One comparison.

    Attributes:
        prompt: the conversation up to the answer.
        chosen: the better answer: the assistant's message, or several with the results of tools between them.
        rejected: the worse one.
        edited: the chosen answer as an annotator has improved it; () for none.
        strength: by how much the chosen one is better; "" where nobody has said.
        tools: what is on offer.
        meta: what is known about where it comes from, JSON values.
    """

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    edited: tuple[Message, ...] = ()
    strength: Strength | Literal[""] = ""
    tools: tuple[ToolSpec, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ranking(self) -> tuple[tuple[Message, ...], ...]:
        """The answers, best first: edited > chosen > rejected (arXiv 2407.21783, section 4.1.2)."""
        return (*((self.edited,) if self.edited else ()), self.chosen, self.rejected)

    def to_json(self) -> dict[str, Any]:
        parts = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected, "edited": self.edited}
        data: dict[str, Any] = {name: [m.to_json() for m in part] for name, part in parts.items()}
        if not self.edited:
            del data["edited"]
        if self.strength:
            data["strength"] = self.strength
        return data | circumstances(self.tools, self.meta)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preference:
        """Reads either form.

        In the form without a prompt (or with one that is a text, as some public sets repeat it) the prompt is what
        the conversations have in common, and each answer what is its own.

        Raises:
            InputError: a field is missing or is no list of messages, or an unknown strength.
        """
        parts = [_messages(data, "chosen"), _messages(data, "rejected")]
        edited = _messages(data, "edited") if data.get("edited") else ()
        if data.get("prompt") is None or isinstance(data["prompt"], str):
            parts += [edited] if edited else []
            shared = _shared(parts)
            prompt, parts = parts[0][:shared], [part[shared:] for part in parts]
            edited = parts[2] if edited else ()
        else:
            prompt = _messages(data, "prompt")
        return cls(
            prompt=prompt,
            chosen=parts[0],
            rejected=parts[1],
            edited=edited,
            strength=_strength(data.get("strength") or ""),
            tools=tuple(ToolSpec.from_json(tool) for tool in data.get("tools") or ()),
            meta=data.get("meta") or {},
        )


def _messages(data: Mapping[str, Any], name: str) -> tuple[Message, ...]:
    found = data.get(name)
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise InputError(f"a preference has {name} {found!r}; it must be a list of messages, with roles")
    return tuple(Message.from_json(message) for message in found)


def _shared(parts: Sequence[tuple[Message, ...]]) -> int:
    """How many messages all begin with; the last of each is its answer, even where the answers are equal."""
    longest = max(0, min(len(part) for part in parts) - 1)
    same = (all(part[i] == parts[0][i] for part in parts) for i in range(longest))
    return next((i for i, equal in enumerate(same) if not equal), longest)


def _strength(name: Any) -> Strength | Literal[""]:
    words = str(name).lower().split()
    known = _OTHER_NAMES.get(words[0], words[0]) if words else ""
    if known and known not in STRENGTHS:
        raise InputError(f"a preference has strength {name!r}; the strengths are {', '.join(STRENGTHS)}")
    return known  # pyright: ignore[reportReturnType]
