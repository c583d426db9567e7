"""Configuration: frozen dataclasses that are read strictly and written as TOML.

A config stands beside the class that it configures. Reading refuses an unknown key and suggests the nearest known
one; a wrong type or a value outside its `Literal` is refused with the path of the key. `override` applies the
command line's `--set a.b=c`. Left out on purpose: interpolation, includes, environment substitution, and untyped
dictionaries: a run's `run.toml` shows every value that was used, so nothing may hide behind a reference.
"""

from __future__ import annotations

import dataclasses
import sys
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import tomli_w

from puna.base.errors import ArtifactError, ConfigError, near

T = TypeVar("T")


def from_dict(cls: type[T], data: Mapping[str, Any], at: str = "") -> T:
    """Builds the dataclass `cls` from plain data.

    Args:
        cls: a dataclass whose fields are scalars, `Literal`s, tuples, mappings, optionals, or dataclasses.
        data: keys are field names; missing ones take their defaults.
        at: the dotted path of `data`, for messages.

    Raises:
        ConfigError: an unknown key, a missing one without a default, or a value of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{at or cls.__name__} is {data!r}; it must be a table of settings.")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ConfigError(f"There is no setting {_join(at, key)!r}.", hint=near(key, fields))
    hints = typing.get_type_hints(cls)
    values = {key: _convert(hints[key], value, _join(at, key)) for key, value in data.items()}
    for name, field in fields.items():
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if name not in values and no_default:
            raise ConfigError(f"The setting {_join(at, name)!r} is missing, and it has no default.")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{at}: {error.message}" if at else error.message, hint=error.hint) from error


def to_dict(config: Any) -> dict[str, Any]:
    """The inverse of `from_dict`: plain data, without the keys whose value is None (TOML has no null).

    So a setting that may be None must have None as its default.
    """
    return {
        field.name: _plain(value)
        for field in dataclasses.fields(config)
        if field.init and (value := getattr(config, field.name)) is not None
    }


def to_toml(config: Any) -> str:
    return tomli_w.dumps(to_dict(config))


def read_toml(path: Path | str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"There is no file {path}.") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error


def override(config: T, assignments: Iterable[str]) -> T:
    """A copy of `config` with `a.b=value` applied for each assignment.

    A value is read as TOML where it is TOML and else as text; for a setting that holds text or a path it is taken as
    it stands. `none` unsets an optional.
    """
    data = to_dict(config)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment!r} has no '='.", hint="Write it as --set section.key=value.")
        _assign(type(config), data, key.strip(), text.strip())
    return from_dict(type(config), data)


def _assign(cls: type, data: dict[str, Any], path: str, text: str) -> None:
    *parents, last = path.split(".")
    done = ""
    for name in parents:
        cls = _nested(cls, name, _join(done, name), done)
        data = data.setdefault(name, {})
        done = _join(done, name)
    hints = typing.get_type_hints(cls)
    if last not in hints:
        raise ConfigError(f"There is no setting {path!r}.", hint=near(last, hints))
    data[last] = _literal(text, hints[last])


def _nested(cls: type, name: str, path: str, parent: str) -> type:
    hints = typing.get_type_hints(cls)
    if name not in hints:
        raise ConfigError(f"There is no section {path!r}.", hint=near(name, hints))
    for candidate in _members(hints[name]):
        if dataclasses.is_dataclass(candidate):
            return typing.cast(type, candidate)
    raise ConfigError(f"{path!r} is one value and has no settings of its own.")


def _members(hint: Any) -> tuple[Any, ...]:
    """The types that a union allows; any other hint is its only member."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _literal(text: str, hint: Any) -> Any:
    kinds = _members(hint)
    if text in ("none", "null") and type(None) in kinds:
        return None
    if set(kinds) <= {str, Path, type(None)} and not text.startswith(('"', "'")):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:  # not TOML, or an integer of more digits than Python reads
        return text


def _join(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _convert(hint: Any, value: Any, at: str) -> Any:
    """`value` as the type `hint`, or a `ConfigError` that names `at`."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, at)
    if origin is Literal:
        if any(value == arg and type(value) is type(arg) for arg in args):  # else True would pass for 1
            return value
        raise ConfigError(f"{at} is {value!r}; it must be one of {', '.join(map(repr, args))}.")
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _wrong_type(at, value, "a list")
        items = list(value)
        kinds = [args[0]] * len(items) if args[-1] is Ellipsis else list(args)
        if len(kinds) != len(items):
            raise ConfigError(f"{at} has {len(items)} values; it must have {len(kinds)}.")
        return tuple(
            _convert(kind, item, f"{at}[{i}]") for i, (kind, item) in enumerate(zip(kinds, items, strict=True))
        )
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong_type(at, value, "a table")
        return {key: _convert(args[1], item, _join(at, key)) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, typing.cast(type, hint)) else from_dict(typing.cast(type, hint), value, at)
    return _convert_scalar(hint, value, at)


def _convert_union(args: tuple[Any, ...], value: Any, at: str) -> Any:
    if value is None and type(None) in args:
        return None
    kinds = [kind for kind in args if kind is not type(None)]
    for kind in kinds[:-1]:
        try:
            return _convert(kind, value, at)
        except ConfigError:
            continue  # the last member's refusal is the one that is shown
    return _convert(kinds[-1], value, at)


def _convert_scalar(hint: Any, value: Any, at: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > sys.float_info.max:
            raise ConfigError(f"{at} is too large; the largest number is {sys.float_info.max:.3g}.")
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)  # TOML reads 1e6 as a float
    if hint is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise _wrong_type(
            at,
            value,
            {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}.get(
                hint, hint.__name__
            ),
        )
    return value


def _wrong_type(at: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"{at} is {value!r}; it must be {expected}.")


def require(holds: bool, message: str, hint: str = "") -> None:
    """For `__post_init__` of a config: raises `ConfigError` where a rule between values does not hold."""
    if not holds:
        raise ConfigError(message, hint=hint)
