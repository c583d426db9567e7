"""One whole answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from puna.core.chat import Message
from puna.core.completion import SamplingParams
from puna.stack.errors import ApiError
from puna.stack.jobs.asking import complete
from puna.stack.testing import ScriptedProvider, make_stack


def test_the_whole_answer_and_the_request_as_it_was_meant(tmp_path: Path) -> None:
    async def go() -> None:
        provider = ScriptedProvider(answers=["three little words"])
        stack = make_stack(tmp_path, provider)
        await stack.start()
        params = SamplingParams(max_tokens=7)
        completion = await complete(
            stack, "scripted/tiny", [Message("user", "Hi")], params, owner="me", keys={"scripted": "k"}
        )
        assert completion.message.content == "three little words"
        assert (provider.asked[0].owner, provider.asked[0].model, provider.asked[0].params) == ("me", "tiny", params)
        assert provider.asked[0].key == "k"
        with pytest.raises(ApiError) as refused:
            await complete(stack, "none", [])
        assert refused.value.status == 404

    asyncio.run(go())
