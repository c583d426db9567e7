from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from puna.core.chat import Message
from puna.core.completion import Completion, Usage
from puna.stack.context import Caller
from puna.stack.errors import ApiError
from puna.stack.responses.compaction import compact
from puna.stack.responses.items import read_items
from puna.stack.responses.messages import messages_of
from puna.stack.testing import ScriptedProvider, make_stack
from puna.stack.wire.responses import Compact

TALK = [{"role": "user", "content": "What is the lid held by?"}, {"role": "assistant", "content": "By four M4 bolts."}]


def run(folder: Path, provider: ScriptedProvider, **body: Any) -> dict[str, Any]:
    async def do() -> dict[str, Any]:
        stack = make_stack(folder, provider)
        await stack.start()
        try:
            return await compact(stack, Caller(), Compact(**body))
        finally:
            await stack.stop()

    return asyncio.run(do())


def test_what_the_user_said_stays_and_the_rest_is_a_summary(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers=[Completion(Message("assistant", "The lid: 4 x M4."), Usage(20, 6))])
    made = run(tmp_path, provider, input=TALK, instructions="You mend machines.")
    said, short = made["output"]
    assert made["object"] == "response.compaction"
    assert said["content"][0]["text"] == TALK[0]["content"]
    assert short["type"] == "compaction"
    assert made["usage"]["total_tokens"] == 26
    asked = provider.asked[0].messages
    assert [message.role for message in asked] == ["system", "user", "assistant", "user"]
    # The output is the input of what comes next.
    assert messages_of(read_items(made["output"]))[-1].content.endswith("The lid: 4 x M4.")


def test_there_must_be_something_to_compact_and_something_to_show_for_it(tmp_path: Path) -> None:
    with pytest.raises(ApiError) as caught:
        run(tmp_path, ScriptedProvider())
    assert caught.value.param == "input"
    with pytest.raises(ApiError, match="no summary"):
        run(tmp_path, ScriptedProvider(answers=[" "]), input=TALK)
