"""A model on the wire."""

from __future__ import annotations

from puna.core.verdict import Price
from puna.stack.providers.provider import ModelInfo
from puna.stack.testing import ScriptedProvider
from puna.stack.wire.models import Model, model_json


def test_what_is_known_is_said_and_nothing_else() -> None:
    provider = ScriptedProvider("p")
    bare = model_json("p/m", provider, ModelInfo("m"), 9.9)
    assert (bare["object"], bare["created"], bare["owned_by"]) == ("model", 9, "p")
    assert bare["custom_metadata"] == {
        "model_type": "llm",
        "provider_id": "p",
        "provider_resource_id": "m",
        "provider_type": "inline::scripted",
        "features": [],
    }
    info = ModelInfo(
        "m", "embedding", 512, "fp32", 26, Price(1.0, 2.0, 0.5), frozenset({"b", "a"}), {"status": "ready"}
    )
    known = model_json("p/m", provider, info, 0)["custom_metadata"]
    assert (known["context_length"], known["precision"], known["embedding_dimension"]) == (512, "fp32", 26)
    assert known["features"] == ["a", "b"]
    assert known["price"] == {"input": 1.0, "output": 2.0, "cached_input": 0.5}
    assert known["status"] == "ready"
    assert Model.model_validate(model_json("p/m", provider, info, 0)).custom_metadata.embedding_dimension == 26
