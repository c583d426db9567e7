from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.config import from_dict, override, read_toml, require, to_dict, to_toml
from puna.base.errors import ArtifactError, ConfigError


@dataclass(frozen=True, slots=True)
class Inner:
    rate: float = 0.1
    kind: Literal["a", "b", "c"] = "a"
    betas: tuple[float, float] = (0.9, 0.95)

    def __post_init__(self) -> None:
        require(self.rate >= 0, f"rate is {self.rate}; it must be at least 0.", hint="Raise it.")


@dataclass(frozen=True, slots=True)
class Phase:
    first: int
    length: int = 512


@dataclass(frozen=True, slots=True)
class Outer:
    steps: int = 10
    name: str = ""
    fast: bool = False
    level: Literal[1, 2] = 1
    limit: int | None = None
    label: str | None = None
    folder: Path = Path("out")
    other: Path | None = None
    either: int | str = 0
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    phases: tuple[Phase, ...] = ()
    words: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    hidden: int = field(default=3, init=False)


numbers = st.floats(allow_nan=False)
inners = st.builds(
    Inner,
    rate=st.floats(min_value=0, allow_nan=False),
    kind=st.sampled_from(["a", "b", "c"]),
    betas=st.tuples(numbers, numbers),
)
paths = st.sampled_from(["a", "a/b", "/tmp/with space", "ü/ñ.txt", 'quo"te', "."]).map(Path)
outers = st.builds(
    Outer,
    steps=st.integers(),
    name=st.text(),
    fast=st.booleans(),
    level=st.sampled_from([1, 2]),
    limit=st.none() | st.integers(),
    label=st.none() | st.text(),
    folder=paths,
    other=st.none() | paths,
    either=st.integers() | st.text(),
    inner=inners,
    maybe=st.none() | inners,
    phases=st.lists(st.builds(Phase, first=st.integers(), length=st.integers()), max_size=3).map(tuple),
    words=st.lists(st.text(), max_size=3).map(tuple),
    weights=st.dictionaries(st.text(), numbers, max_size=3),
)


@given(outers)
def test_a_config_survives_toml(config: Outer) -> None:
    assert from_dict(Outer, tomllib.loads(to_toml(config))) == config


@given(outers)
def test_a_config_survives_its_dictionary(config: Outer) -> None:
    assert from_dict(Outer, to_dict(config)) == config
    assert override(config, []) == config


@given(outers, inners)
def test_overriding_every_scalar_of_a_section_gives_that_section(config: Outer, wanted: Inner) -> None:
    assignments = [
        f"inner.rate={wanted.rate!r}",
        f" inner.kind = {wanted.kind} ",
        f"inner.betas=[{wanted.betas[0]!r}, {wanted.betas[1]!r}]",
    ]
    assert override(config, assignments) == replace(config, inner=wanted)


@given(st.text())
def test_text_is_taken_as_it_stands(text: str) -> None:
    quoted = text.strip().startswith(('"', "'"))
    if not quoted:
        assert override(Outer(), [f"name={text}"]).name == text.strip()


@pytest.mark.parametrize("text", ["1e3", "007", "1.50", "true", "2024-01-01", "none", "[1]", "a=b", ""])
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    assert override(Outer(), [f"name={text}"]).name == text


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("steps=1e6", "steps", 1_000_000),
        ("steps=1_000", "steps", 1000),
        ("fast=true", "fast", True),
        ("limit=5", "limit", 5),
        ("limit=none", "limit", None),
        ("label=none", "label", None),
        ('name="1 2"', "name", "1 2"),
        ('name="unfinished', "name", '"unfinished'),
        ("folder=123", "folder", Path("123")),
        ("other=null", "other", None),
        ("either=5", "either", 5),
        ("either=five", "either", "five"),
        ('words=["a", "b"]', "words", ("a", "b")),
        ("phases=[{first = 1}, {first = 2, length = 3}]", "phases", (Phase(1), Phase(2, 3))),
        ("weights={a = 1}", "weights", {"a": 1.0}),
        ("maybe.rate=0.5", "maybe", Inner(rate=0.5)),
        ("maybe=none", "maybe", None),
    ],
)
def test_an_override_is_read_as_the_type_of_its_setting(assignment: str, name: str, value: Any) -> None:
    config = replace(Outer(), limit=1, label="x", maybe=None)
    assert getattr(override(config, [assignment]), name) == value


def test_the_last_override_wins_and_the_original_stays() -> None:
    config = Outer()
    assert override(config, ["steps=1", "steps=2"]).steps == 2
    assert config == Outer()


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("steps", "no '='"),
        ("step=1", "no setting 'step'.*\n.*'steps'"),
        ("inner.rat=1", "no setting 'inner.rat'.*\n.*'rate'"),
        ("iner.rate=1", "no section 'iner'.*\n.*'inner'"),
        ("steps.x=1", "'steps' is one value"),
        ("phases.first=1", "'phases' is one value"),
        ("weights.a=1", "'weights' is one value"),
        ("steps=none", "steps is 'none'"),
        ("inner.rate=-1", "inner: rate is -1.0; it must be at least 0.\n  Raise it."),
        ("inner.kind=d", "inner.kind is 'd'; it must be one of 'a', 'b', 'c'"),
        ("hidden=4", "no setting 'hidden'"),
        ("=1", "no setting ''"),
        ("steps=" + "9" * 5000, "steps is"),
        ("inner.rate=" + "9" * 400, "inner.rate is too large"),
    ],
)
def test_a_wrong_override_is_refused_with_the_way_out(assignment: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        override(Outer(), [assignment])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"stepz": 1}, "no setting 'stepz'.*\n.*'steps'"),
        ({"inner": {"rates": 1}}, "no setting 'inner.rates'.*\n.*'rate'"),
        ({"phases": [{"first": 1}, {"frist": 1}]}, r"no setting 'phases\[1\].frist'.*\n.*'first'"),
        ({"phases": [{}]}, r"'phases\[0\].first' is missing"),
        ({"steps": "10"}, "steps is '10'; it must be a whole number"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"steps": True}, "steps is True"),
        ({"fast": 1}, "fast is 1; it must be true or false"),
        ({"name": 1}, "name is 1; it must be text"),
        ({"folder": 1}, "folder is 1; it must be a path"),
        ({"limit": "1"}, "limit is '1'"),
        ({"level": 3}, "level is 3; it must be one of 1, 2"),
        ({"level": True}, "level is True"),
        ({"level": 1.0}, "level is 1.0"),
        ({"inner": 1}, "inner is 1; it must be a table"),
        ({"inner": {"betas": [1, 2, 3]}}, "inner.betas has 3 values; it must have 2"),
        ({"inner": {"betas": [1, "x"]}}, r"inner.betas\[1\] is 'x'; it must be a number"),
        ({"words": "abc"}, "words is 'abc'; it must be a list"),
        ({"words": {"a": 1}}, "words is .* it must be a list"),
        ({"weights": [1]}, "weights is .* it must be a table"),
        ({"weights": {"a": "x"}}, "weights.a is 'x'"),
        ({"hidden": 4}, "no setting 'hidden'"),
        ({"inner": {"rate": float("nan")}}, "rate is nan"),
        ([], "Outer is .* it must be a table"),
    ],
)
def test_wrong_data_is_refused_with_the_path_of_the_key(data: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        from_dict(Outer, data)


def test_whole_numbers_and_fractions_convert_only_without_loss() -> None:
    assert from_dict(Outer, {"steps": 1e3, "inner": {"rate": 1}}) == Outer(steps=1000, inner=Inner(rate=1.0))
    assert isinstance(from_dict(Outer, {"steps": 1e3}).steps, int)
    assert isinstance(from_dict(Inner, {"rate": 1}).rate, float)


@given(st.dictionaries(st.sampled_from([f.name for f in fields(Outer)]), st.integers() | st.text() | st.lists(numbers)))
def test_any_data_gives_a_config_or_a_config_error(data: dict[str, Any]) -> None:
    try:
        config = from_dict(Outer, data)
    except ConfigError as error:
        assert any(name in error.message for name in data)
    else:
        assert from_dict(Outer, to_dict(config)) == config


def test_a_toml_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(to_toml(Outer(name="ñandú")), encoding="utf-8")
    assert from_dict(Outer, read_toml(tmp_path / "run.toml")).name == "ñandú"


@pytest.mark.parametrize("content", [b"a = [1,", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_damaged_toml_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"run.toml is not valid TOML"):
        read_toml(tmp_path / "run.toml")


def test_a_file_that_cannot_be_read_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="There is no file"):
        read_toml(tmp_path / "absent.toml")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_toml(tmp_path)
