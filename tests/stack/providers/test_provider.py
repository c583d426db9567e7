"""The nouns of a provider."""

from __future__ import annotations

from puna.stack.providers.provider import Ask, Health, ModelInfo, Provider
from puna.stack.testing import ScriptedProvider


def test_defaults_promise_nothing() -> None:
    model = ModelInfo("a")
    assert (model.type, model.context_length, model.precision, model.features) == ("llm", 0, "", frozenset())
    assert not Health(False, "gone").ok
    assert Ask("a").owner == ""


def test_the_fake_is_a_provider() -> None:
    provider: Provider = ScriptedProvider()
    names = [name for name in vars(Provider) if not name.startswith("_")]
    assert all(callable(getattr(provider, name)) for name in names)
