from __future__ import annotations

from pathlib import Path

import pytest

from puna.base.errors import ConfigError
from puna.base.registry import Registry


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package that names two objects in the group `puna.tests`."""
    (tmp_path / "puna_plugin.py").write_text("class Given:\n    pass\n\ngiven = Given()\n")
    info = tmp_path / "puna_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: puna-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[puna.tests]\ngiven = puna_plugin:given\nbroken = puna_plugin:absent\nown = puna_plugin:given\n"
        "[puna.others]\nother = puna_plugin:given\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("plugin")
def test_built_ins_and_plugins_are_found_the_same_way() -> None:
    registry: Registry[object] = Registry("thing", "puna.tests")
    own = registry.add("own", object())
    assert registry.get("own") is own, "a built-in goes before a plugin of its name"
    assert type(registry.get("given")).__name__ == "Given"
    assert registry.get("given") is registry.get("given")
    assert registry.names() == list(registry) == ["broken", "given", "own"]
    assert "given" in registry
    assert "other" not in registry, "it is in another group"


@pytest.mark.usefixtures("plugin")
def test_plugins_are_loaded_only_when_asked_for() -> None:
    registry: Registry[object] = Registry("thing", "puna.tests")
    assert "broken" in registry.names()
    with pytest.raises(AttributeError, match="absent"):
        registry.get("broken")


def test_an_unknown_name_answers_with_the_near_one_or_the_known_ones() -> None:
    registry: Registry[int] = Registry("optimizer")
    registry.add("adamw", 1)
    registry.add("muon", 2)
    with pytest.raises(ConfigError, match=r"no optimizer 'adam'.\n  Did you mean 'adamw'"):
        registry.get("adam")
    with pytest.raises(ConfigError, match="Known: adamw, muon"):
        registry.get("zzz")


def test_two_objects_cannot_have_one_name() -> None:
    registry: Registry[object] = Registry("thing")
    first = object()
    registry.add("a", first)
    registry.add("a", first)
    with pytest.raises(ConfigError, match="Two objects are registered as thing 'a'"):
        registry.add("a", object())
    assert registry.get("a") is first


def test_a_registry_without_a_group_takes_no_plugins() -> None:
    assert Registry("thing").names() == []
