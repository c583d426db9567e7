"""Synthetic data over HTTP."""

from __future__ import annotations

from typing import Any

from puna.stack.testing import ScriptedProvider


def test_dialogs_are_answered_and_filtered(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        body = {"dialogs": [{"role": "user", "content": "Hi"}], "filtering_function": "none", "model": "scripted/tiny"}
        for prefix in ("/v1", "/v1alpha"):
            found = (await client.post(f"{prefix}/synthetic-data-generation/generate", json=body)).json()
            assert found["statistics"]["kept"] == 1
            assert found["synthetic_data"][0]["messages"][-1]["content"] == "Hello."
        refused = await client.post("/v1/synthetic-data-generation/generate", json=body | {"dialogs": []})
        assert refused.status_code == 400

    serve(scenario, ScriptedProvider(answers=["Hello.", "Hello."]))
