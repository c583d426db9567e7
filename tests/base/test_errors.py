from __future__ import annotations

import errno
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base import errors
from puna.base.errors import (
    ConfigError,
    InputError,
    MissingExtraError,
    PunaError,
    RemoteError,
    StorageError,
    near,
    storage_errors,
)

ALL = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, PunaError)]


def drawn_tree() -> dict[str, str]:
    """Child -> parent, as the module's docstring draws it."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^([ │├└─]*)([A-Z]\w+Error)\b", line):
            depth, name = len(match[1]), match[2]
            above = [entry for entry in above if entry[0] < depth]
            if above:
                parents[name] = above[-1][1]
            above.append((depth, name))
    return parents


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {
        cls.__name__: next(base.__name__ for base in cls.__mro__[1:] if base in ALL)
        for cls in ALL
        if cls is not PunaError
    }
    assert drawn_tree() == real


def test_each_class_has_an_exit_code_of_its_own_or_its_parents() -> None:
    own = {cls.__name__: cls.exit_code for cls in ALL if "exit_code" in vars(cls)}
    assert len(set(own.values())) == len(own)
    assert all(0 < code < 126 for code in own.values()), "higher codes are the shell's"
    direct = [cls.__name__ for cls in ALL if cls.__bases__[0] is PunaError]
    assert set(own) == {"PunaError", *direct}


@pytest.mark.parametrize("cls", ALL)
def test_an_error_says_what_happened_and_the_way_out(cls: type[PunaError]) -> None:
    error = cls("It is 5; the limit is 4.", hint="Use 4.")
    assert str(error) == "It is 5; the limit is 4.\n  Use 4."
    assert str(cls("It is 5.")) == "It is 5."
    assert (error.message, error.hint) == ("It is 5; the limit is 4.", "Use 4.")


@pytest.mark.parametrize("cls", ALL)
def test_an_error_comes_back_whole_from_a_worker_process(cls: type[PunaError]) -> None:
    error = pickle.loads(pickle.dumps(cls("message", hint="hint")))
    assert (type(error), error.message, error.hint, str(error)) == (cls, "message", "hint", "message\n  hint")


def test_errors_can_be_caught_as_pythons_own() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(InputError, ValueError)
    assert issubclass(StorageError, OSError)
    assert issubclass(MissingExtraError, ImportError)


def test_near_names_the_one_that_was_meant() -> None:
    assert near("warmup_step", ["warmup_steps", "decay_share"]) == "Did you mean 'warmup_steps'?"
    assert near("zzz", ["b", "a"]) == "Known: a, b."
    assert near("zzz", []) == "Known: none."
    many = [f"name{i:02d}" for i in range(30)]
    assert near("zzz", many) == "There are 30 known names, from 'name00' to 'name29'."


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=30))
def test_near_never_proposes_what_is_not_known(name: str, known: list[str]) -> None:
    if match := re.fullmatch(r"Did you mean (.+)\?", near(name, known), re.DOTALL):
        assert match[1] in [repr(item) for item in known]


def test_a_missing_extra_says_what_to_install() -> None:
    error = errors.missing_extra("pypdf", "pdf", "Reading PDF")
    assert isinstance(error, ImportError)
    assert "pypdf" in str(error)
    assert "puna[pdf]" in str(error)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "larger"),
        (errno.EACCES, "permission"),
        (errno.EPERM, "permitted"),
        (errno.EROFS, "read-only"),
        (errno.ENOTDIR, "not a folder"),
        (errno.EISDIR, "not a file"),
        (errno.ENAMETOOLONG, "too long"),
    ],
)
def test_refusals_of_the_disk_become_storage_errors(number: int, said: str) -> None:
    with pytest.raises(StorageError, match=f"some/path.*{said}") as caught, storage_errors("some/path"):
        raise OSError(number, "as the system says it")
    assert caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)


def test_a_full_device_is_a_storage_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageError, match="the disk is full"), storage_errors("/dev/full"):
        Path("/dev/full").write_text("x")


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "x"), RemoteError("x"), StorageError("inner"), KeyError("x")]
)
def test_other_errors_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, storage_errors("path"):
        raise error
    assert caught.value is error
