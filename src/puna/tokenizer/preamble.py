"""What stands before a conversation's messages when tools are on offer or dates are given, and how it is told again.

Lines of the system message, in Meta's order: `Environment: ipython`, `Tools: ...`, the two dates, a blank line, the
developer's text. The definitions of custom tools go into a user message of their own before the first one (JSON and
function tags) or into the system message (pythonic), as Meta's prompt formats show; the wording is Puna's, in
`assets/tool_prompts.toml`. What `add` puts in, `strip` takes out exactly.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

from puna.base.config import require
from puna.core.chat import Message, ToolSpec
from puna.tokenizer.tool_calls import BUILTIN_TOOLS, CODE_TOOL, ToolFormat

Place = Literal["auto", "system", "user"]
When = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class ChatStyle:
    """The choices that Llama's chat format leaves open.

    Attributes:
        tool_format: how custom tools are called: "json" and "function_tag" are Llama 3.1's, "pythonic" that of
            Llama 3.2 and 3.3.
        tools_in: the message that defines custom tools; "auto" is "system" for pythonic, "user" otherwise.
        environment: whether the line `Environment: ipython` stands first, which also turns the code interpreter on.
            None: where a built-in tool is on offer, or a custom one in JSON.
        knowledge_date: what follows `Cutting Knowledge Date: `; "" leaves the line out.
        today: what follows `Today Date: `, such as "24 September 2024"; "" leaves the line out. A tokenizer reads no
            clock: equal messages give equal ids on every day.
        dates: when these two lines appear; "auto" is with tools, or when `today` is given.
        tool_role: the role that tool results carry: "ipython", or "tool" as the documents of Llama 3.3 say.
    """

    tool_format: ToolFormat = "json"
    tools_in: Place = "auto"
    environment: bool | None = None
    knowledge_date: str = "December 2023"
    today: str = ""
    dates: When = "auto"
    tool_role: str = "ipython"

    def __post_init__(self) -> None:
        for name, kind in (("tool_format", ToolFormat), ("tools_in", Place), ("dates", When)):
            value, values = getattr(self, name), get_args(kind)
            require(value in values, f"{name} is {value!r}; it must be one of {', '.join(map(repr, values))}.")
        taken = self.tool_role in ("", "system", "user", "assistant")
        require(not taken, f"tool_role is {self.tool_role!r}; it must differ from the other roles.")


class Preamble:
    """The preamble of one conversation.

    Args:
        style: the choices.
        tools: what is on offer.

    Attributes:
        environment: whether `Environment: ipython` is on.
        system: what stands before the developer's text in the system message; "" for nothing.
        user: the user message that defines the tools; "" for none.
    """

    def __init__(self, style: ChatStyle, tools: Sequence[ToolSpec]) -> None:
        builtin = [tool.name for tool in tools if tool.name in BUILTIN_TOOLS]
        custom = [tool for tool in tools if tool.name not in BUILTIN_TOOLS]
        wanted = bool(builtin) or (bool(custom) and style.tool_format == "json")
        self.environment = wanted if style.environment is None else style.environment
        where = style.tools_in
        if where == "auto":
            where = "system" if style.tool_format == "pythonic" else "user"
        prompt = tool_prompt(style.tool_format).replace("{functions}", _definitions(style, custom)) if custom else ""
        lines = self._lines(style, [name for name in builtin if name != CODE_TOOL], bool(tools))
        self.system = "\n\n".join(filter(None, [lines, prompt if where == "system" else ""]))
        self.user = prompt if where == "user" else ""

    def _lines(self, style: ChatStyle, search: Sequence[str], tools: bool) -> str:
        lines = ["Environment: ipython"] if self.environment else []
        if search:
            lines.append(f"Tools: {', '.join(search)}")
        if style.dates == "always" or (style.dates == "auto" and (tools or style.today)):
            dates = [("Cutting Knowledge Date", style.knowledge_date), ("Today Date", style.today)]
            dated = [f"{name}: {date}" for name, date in dates if date]
            if self.environment and not search and dated:
                lines.append("")  # Meta's place for the missing line of tools
            lines += dated
        return "\n".join(lines)

    def add(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as they are written."""
        messages = list(messages)
        has_system = bool(messages) and messages[0].role == "system"
        if self.system and has_system:
            messages[0] = replace(messages[0], content=f"{self.system}\n\n{messages[0].content}")
        elif self.system:
            messages.insert(0, Message("system", self.system))
        if self.user:
            messages.insert(int(bool(self.system) or has_system), Message("user", self.user))
        return messages

    def strip(self, messages: Sequence[Message]) -> list[Message]:
        """The inverse of `add`; what it did not put there stays."""
        messages = list(messages)
        at = int(bool(messages) and messages[0].role == "system")
        if self.user and len(messages) > at and messages[at] == Message("user", self.user):
            del messages[at]
        if not self.system or not messages or messages[0].role != "system":
            return messages
        if messages[0] == Message("system", self.system):
            return messages[1:]
        before = f"{self.system}\n\n"
        if messages[0].content.startswith(before):
            messages[0] = replace(messages[0], content=messages[0].content.removeprefix(before))
        return messages


def tool_prompt(tool_format: ToolFormat) -> str:
    """The text that defines custom tools, with `{functions}` where the definitions go."""
    return _prompts()[tool_format]["prompt"]


@cache
def _prompts() -> dict[str, Any]:
    return tomllib.loads((resources.files("puna.tokenizer") / "assets/tool_prompts.toml").read_text(encoding="utf-8"))


def _definitions(style: ChatStyle, tools: Sequence[ToolSpec]) -> str:
    if style.tool_format == "json":
        return "\n\n".join(json.dumps(tool.to_json(), ensure_ascii=False, indent=4) for tool in tools)
    functions = [tool.to_json()["function"] for tool in tools]
    if style.tool_format == "function_tag":
        return "\n\n".join(
            f"{tool.name}: {tool.description}\n{json.dumps(function, ensure_ascii=False)}"
            for tool, function in zip(tools, functions, strict=True)
        )
    for function in functions:
        if function["parameters"].get("type") == "object":
            function["parameters"] = {**function["parameters"], "type": "dict"}  # as Llama 3.2's documents write it
    return json.dumps(functions, ensure_ascii=False, indent=4)
