from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base import files
from puna.base.errors import ArtifactError, BusyError, InputError, StorageError
from puna.base.files import (
    atomic_folder,
    atomic_write,
    folder_lock,
    format_bytes,
    hash_bytes,
    hash_file,
    hash_folder,
    hash_json,
    move_folder,
    read_json,
    read_jsonl,
    recover_folder,
    require_space,
    safe_join,
    write_json,
    write_jsonl,
    write_text,
)

KILLS = 8


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Runs Python code in another process, and waits for its first line."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    if not process.stdout.readline():
        pytest.fail(process.communicate()[1])
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


# Files ---------------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from puna.base.files import atomic_write
for i in range(10**9):
    with atomic_write(sys.argv[1]) as file:
        for _ in range(20):
            file.write(bytes([97 + i % 26]) * 10_000)
    if i == 0:
        print("ready", flush=True)
"""


def test_a_file_is_whole_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    target, random_ = tmp_path / "data.bin", random.Random(0)
    for _ in range(KILLS):
        process = start(WRITER, target)
        time.sleep(random_.uniform(0, 0.03))
        kill(process)
        data = target.read_bytes()
        assert len(data) == 200_000
        assert len(set(data)) == 1
    write_text(target, "end")
    assert names(tmp_path) == ["data.bin"], "what killed writers left is gone after the next write"


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "data.txt"
    write_text(target, "old")
    with pytest.raises(KeyError), atomic_write(target, "w") as file:
        file.write("new")
        raise KeyError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["data.txt"]


LIVE = """
import sys
from puna.base.files import atomic_write
with atomic_write(sys.argv[1], "w") as file:
    print("ready", flush=True)
    sys.stdin.read(1)
"""


def test_a_live_writer_keeps_its_temporary_file(tmp_path: Path) -> None:
    process = start(LIVE, tmp_path / "a")
    assert len(names(tmp_path)) == 1
    write_text(tmp_path / "a", "ours")
    assert len(names(tmp_path)) == 2
    kill(process)
    write_text(tmp_path / "a", "ours again")
    assert names(tmp_path) == ["a"]


def test_litter_of_another_name_is_left_alone(tmp_path: Path) -> None:
    others = [
        ".a.5.999999999.1.partial",
        ".b.999999999.1.partial",
        ".a.partial",
        ".a.x.1.partial",
        "a.999999999.1.partial",
    ]
    for name in others:
        (tmp_path / name).write_text("x")
    (tmp_path / ".a.999999999.1.partial").write_text("x")
    write_text(tmp_path / "a", "x")
    assert names(tmp_path) == sorted([*others, "a"])


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"


FULL = """
import os, sys
from pathlib import Path
from puna.base.errors import StorageError
from puna.base.files import atomic_folder, atomic_write, write_jsonl, write_text
from puna.base.progress import MetricsLog

root = Path(sys.argv[1])
write_text(root / "file", "old")
with atomic_folder(root / "folder") as folder:
    (folder / "a").write_text("old")

def refused(work):
    try:
        work()
    except StorageError as error:
        assert "the disk is full" in error.message, error
        return
    raise AssertionError(f"{work} was not refused")

def big_file():
    with atomic_write(root / "file") as file:
        for _ in range(200):
            file.write(bytes(10_000))

def big_folder():
    with atomic_folder(root / "folder") as folder:
        for i in range(200):
            (folder / f"{i}").write_bytes(bytes(10_000))

def many_rows():
    write_jsonl(root / "file", ({"text": "x" * 10_000} for _ in range(200)))

def endless_log():
    while True:
        log.write(text="y" * 10_000)

log = MetricsLog(root / "metrics.jsonl")
for work in (big_file, big_folder, many_rows):
    refused(work)
    assert sorted(os.listdir(root)) == ["file", "folder"], os.listdir(root)
refused(endless_log)
assert (root / "file").read_text() == "old" and os.listdir(root / "folder") == ["a"]
(root / "file").unlink()
assert all(len(row["text"]) == 10_000 for row in MetricsLog(root / "metrics.jsonl").read())
"""


def test_a_full_disk_leaves_the_old_artifacts_and_no_litter(small_filesystem: Callable[..., None]) -> None:
    small_filesystem(FULL)


READ_ONLY = """
import sys
from pathlib import Path
from puna.base.errors import StorageError
from puna.base.files import atomic_folder, atomic_write, folder_lock
from puna.base.progress import MetricsLog

root = Path(sys.argv[1])
for enter in (
    lambda: atomic_write(root / "file").__enter__(),
    lambda: atomic_write(root / "new" / "file").__enter__(),
    lambda: atomic_folder(root / "folder").__enter__(),
    lambda: folder_lock(root).__enter__(),
    lambda: MetricsLog(root / "metrics.jsonl").write(a=1),
):
    try:
        enter()
    except StorageError as error:
        assert "read-only" in error.message and str(root) in error.message, error
    else:
        raise AssertionError("it was not refused")
"""


def test_a_read_only_file_system_is_a_storage_error(small_filesystem: Callable[..., None]) -> None:
    small_filesystem(READ_ONLY, read_only=True)


def test_a_folder_without_permission_is_a_storage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("root may write anywhere")
        with pytest.raises(StorageError, match="permission denied"):
            write_text(tmp_path / "file", "x")
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize(("name", "said"), [("x" * 300, "too long"), ("file/below", "a part of the path is a file")])
def test_a_path_that_cannot_be_is_a_storage_error(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=said):
        write_text(tmp_path / name, "x")


# Folders -------------------------------------------------------------------------------------------------------------

FOLDER_WRITER = """
import sys
from puna.base.files import atomic_folder
for i in range(10**9):
    with atomic_folder(sys.argv[1]) as folder:
        (folder / "below").mkdir()
        for name in ("a", "b", "below/c"):
            (folder / name).write_text(f"{i} " * 100)
    if i == 0:
        print("ready", flush=True)
"""


def test_a_folder_is_whole_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    target, random_ = tmp_path / "artifact", random.Random(1)
    for _ in range(KILLS):
        process = start(FOLDER_WRITER, target)
        time.sleep(random_.uniform(0, 0.03))
        kill(process)
        recover_folder(target)
        assert names(target) == ["a", "b", "below"]
        contents = [(target / name).read_text() for name in ("a", "b", "below/c")]
        assert len(set(contents)) == 1
        assert len(contents[0].split()) == 100
    with atomic_folder(target) as folder:
        (folder / "end").touch()
    assert names(target) == ["end"]
    assert names(tmp_path) == ["artifact"], "what killed writers left is gone after the next write"


def test_an_error_while_filling_leaves_the_old_folder(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "old").touch()
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "a") as folder:
        (folder / "new").touch()
        raise KeyboardInterrupt
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["old"]


def test_a_move_that_was_cut_off_between_its_renames_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, source = tmp_path / "a", tmp_path / "b"
    for folder in (target, source):
        folder.mkdir()
        (folder / f"from_{folder.name}").touch()
    rename = Path.rename

    def once(path: Path, to: Path) -> Path:
        if path == source:
            raise SystemExit("killed here")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(SystemExit):
        move_folder(source, target)
    monkeypatch.undo()
    assert not target.exists()
    recover_folder(target)
    assert names(target) == ["from_a"]
    move_folder(source, target)
    assert names(target) == ["from_b"]
    assert names(tmp_path) == ["a"]


def test_a_move_that_was_cut_off_after_its_renames_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "new").touch()
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)
    move_folder(tmp_path / "b", tmp_path / "a")
    monkeypatch.undo()
    assert len(names(tmp_path)) == 2
    recover_folder(tmp_path / "a")
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["new"]


@pytest.mark.parametrize("standing", ["old alone", "both"])
def test_a_write_takes_up_what_a_cut_off_move_has_left(tmp_path: Path, standing: str) -> None:
    for folder in (tmp_path / ".a.old", *([tmp_path / "a"] if standing == "both" else [])):
        folder.mkdir()
        (folder / folder.name.strip(".")).touch()
    with pytest.raises(KeyError), atomic_folder(tmp_path / "a"):
        raise KeyError
    assert names(tmp_path / "a") == (["a"] if standing == "both" else ["a.old"])
    (tmp_path / ".a.old").mkdir()
    (tmp_path / ".a.old" / "older").touch()
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "new").touch()
    assert names(tmp_path / "a") == ["new"]
    assert names(tmp_path) == ["a"]


# Locks ---------------------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from puna.base.files import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read(1)
"""


def test_a_folder_has_one_holder_and_is_free_when_it_is_killed(tmp_path: Path) -> None:
    process = start(HOLDER, tmp_path)
    with pytest.raises(BusyError, match="Another process"), folder_lock(tmp_path):
        pass
    kill(process)
    with folder_lock(tmp_path, wait=5), pytest.raises(BusyError), folder_lock(tmp_path, wait=0.05):
        pass
    with folder_lock(tmp_path):
        pass


def test_a_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), folder_lock(tmp_path / "new"):
        raise KeyError
    with folder_lock(tmp_path / "new"):
        pass


# JSON ----------------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json")


@given(data=json_values)
def test_json_survives_its_file(scratch: Path, data: Any) -> None:
    write_json(scratch / "a.json", data)
    assert read_json(scratch / "a.json") == data


@given(rows=st.lists(st.dictionaries(st.text(), json_values, max_size=2), max_size=4))
def test_json_lines_survive_their_file_whatever_characters_they_hold(scratch: Path, rows: list[dict[str, Any]]) -> None:
    assert write_jsonl(scratch / "a.jsonl", rows) == len(rows)
    assert list(read_jsonl(scratch / "a.jsonl")) == rows


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"{'a': 1}"])
def test_damaged_json_is_an_artifact_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("line", [b'{"a": ', b"\xff\xfe", b"[1]", b"null"])
def test_a_damaged_line_is_named_by_its_number(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    rows = read_jsonl(tmp_path / "a.jsonl")
    assert next(rows) == {"a": 1}
    with pytest.raises(ArtifactError, match="line 3"):
        next(rows)


def test_what_cannot_be_read_is_an_artifact_error(tmp_path: Path) -> None:
    for read in (read_json, lambda path: list(read_jsonl(path))):
        with pytest.raises(ArtifactError, match="There is no file"):
            read(tmp_path / "absent")
        with pytest.raises(ArtifactError, match="cannot be read"):
            read(tmp_path)


# Hashes and names ----------------------------------------------------------------------------------------------------


@given(st.binary())
def test_hashes_are_sha256(data: bytes) -> None:
    assert hash_bytes(data) == hashlib.sha256(data).hexdigest()


def test_a_file_hashes_as_its_bytes(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(data)
    assert hash_file(tmp_path / "a") == hash_folder(tmp_path / "a") == hash_bytes(data)


@given(st.dictionaries(st.text(), json_values, min_size=2, max_size=5), st.randoms())
def test_the_hash_of_json_forgets_the_order_of_keys(data: dict[str, Any], random_: random.Random) -> None:
    items = list(data.items())
    random_.shuffle(items)
    assert hash_json(dict(items)) == hash_json(data)
    assert hash_json({**data, items[0][0]: "another value"}) != hash_json({**data, items[0][0]: "a third"})


def test_the_hash_of_a_folder_sees_names_and_contents_only(tmp_path: Path) -> None:
    def make(name: str, contents: dict[str, str]) -> Path:
        for path, text in contents.items():
            write_text(tmp_path / name / path, text)
        return tmp_path / name

    first = hash_folder(make("first", {"b/c": "1", "a": "2"}))
    again = make("again", {"a": "2", "b/c": "1"})
    os.utime(again / "a", (1, 1))
    (again / "empty").mkdir()
    assert hash_folder(again) == first
    assert hash_folder(make("renamed", {"b/d": "1", "a": "2"})) != first
    assert hash_folder(make("moved", {"c": "1", "a": "2"})) != first
    assert hash_folder(make("changed", {"b/c": "1", "a": "3"})) != first
    assert hash_folder(make("swapped", {"b/c": "2", "a": "1"})) != first
    assert hash_folder(make("more", {"a": "2", "b/c": "1", "b/card.json": "x"}), leave_out=["card.json"]) == first


@pytest.mark.parametrize("name", ["a", "a/b.txt", "./a", "a/../b", "a b/ü", ".hidden", "..."])
def test_names_inside_are_joined(tmp_path: Path, name: str) -> None:
    assert safe_join(tmp_path, name) == (tmp_path / name).resolve()


@pytest.mark.parametrize(
    "name", ["..", "../x", "a/../../x", "/etc/passwd", "a/b/../../../c", "link/x", "a\0b", "loop/x/.."]
)
def test_names_that_lead_out_or_nowhere_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root" / "loop")
    if name.startswith("loop") and sys.version_info >= (3, 13):
        pytest.skip("Python 3.13 resolves a circle of links to itself")
    with pytest.raises(InputError):
        safe_join(tmp_path / "root", name)


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "", "/", "\0", "..."]) | st.text(max_size=3), max_size=6))
def test_no_name_ever_leads_out(parts: list[str]) -> None:
    root = Path("/nowhere/root")
    try:
        path = safe_join(root, "/".join(parts))
    except InputError:
        return
    assert path == root or root in path.parents


def test_a_name_beside_the_root_with_the_same_beginning_is_outside(tmp_path: Path) -> None:
    (tmp_path / "root2").mkdir()
    with pytest.raises(InputError):
        safe_join(tmp_path / "root", "../root2/x")


def test_space_is_asked_for_before_work(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(StorageError, match=r"needs 1024.0 TiB.*free\."):
        require_space(tmp_path / "not" / "yet", 1 << 50)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (5 << 40, "5.0 TiB")],
)
def test_bytes_are_shown_in_powers_of_1024(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_json_files_are_readable_text(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "ñandú"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "name": "ñandú"\n}\n'
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"name": "ñandú"}
