"""The container, byte by byte; and bytes that are no container."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.base.errors import CheckpointError, StorageError
from puna.export.gguf_file import ALIGNMENT, MAX_METADATA, Entry, GgufFile, TensorEntry, write_gguf
from puna.export.gguf_types import TYPES

METADATA: dict[str, Entry] = {
    "general.architecture": ("string", "llama"),
    "a.number": ("uint32", 7),
    "a.float": ("float32", 1e-5),
    "a.flag": ("bool", True),
    "a.list": ("[string]", ["x", "größe", ""]),
    "a.ids": ("[int32]", [1, -2]),
}
TENSORS = [TensorEntry("one", (2, 3), TYPES["F32"]), TensorEntry("two", (1, 32), TYPES["Q8_0"])]
VALUES = {"one": torch.arange(6.0).view(2, 3), "two": torch.linspace(-127, 127, 32).view(1, 32).round()}


def write(path: Path) -> Path:
    write_gguf(path, METADATA, TENSORS, VALUES.__getitem__)
    return path


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def test_the_bytes_are_those_of_the_specification(tmp_path: Path) -> None:
    """Written here value by value: magic, version 3, counts; key, kind, value; name, dimensions reversed, type, offset;
    then the data, all at multiples of 32."""
    expected = b"GGUF" + struct.pack("<IQQ", 3, 2, 6)
    expected += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    expected += text("a.number") + struct.pack("<II", 4, 7)
    expected += text("a.float") + struct.pack("<If", 6, 1e-5)
    expected += text("a.flag") + struct.pack("<IB", 7, 1)
    expected += text("a.list") + struct.pack("<IIQ", 9, 8, 3) + text("x") + text("größe") + text("")
    expected += text("a.ids") + struct.pack("<IIQii", 9, 5, 2, 1, -2)
    expected += text("one") + struct.pack("<IQQIQ", 2, 3, 2, 0, 0)
    expected += text("two") + struct.pack("<IQQIQ", 2, 32, 1, 8, 32)
    expected += bytes(-len(expected) % 32)
    expected += struct.pack("<6f", *range(6)) + bytes(8)
    levels = [int(x) for x in VALUES["two"].flatten()]
    expected += struct.pack("<e32b", 1.0, *levels) + bytes(30)
    assert write(tmp_path / "a.gguf").read_bytes() == expected


def test_what_was_written_is_read(tmp_path: Path) -> None:
    file = GgufFile(write(tmp_path / "a.gguf"))
    assert file.metadata["a.list"] == ["x", "größe", ""]
    assert file.metadata["a.float"] == 1e-5, "the shortest decimal, not the float32 in full"
    assert file.metadata["a.ids"].tolist() == [1, -2]
    assert [(entry.name, entry.shape) for entry in file.tensors.values()] == [("one", (2, 3)), ("two", (1, 32))]
    assert all(entry.start % ALIGNMENT == 0 for entry in file.tensors.values())
    assert torch.equal(file.tensor("one"), VALUES["one"])
    assert torch.equal(file.tensor("two"), VALUES["two"])


def test_a_changed_tensor_never_reaches_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf")
    before = path.read_bytes()
    file = GgufFile(path)
    file.tensor("one").fill_(5)
    del file
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16", "uint64", "int64", "float64"])
def test_every_kind_of_number_is_read(tmp_path: Path, kind: str) -> None:
    metadata: dict[str, Entry] = {"one": (kind, 5), "many": (f"[{kind}]", [5, 6])}
    write_gguf(tmp_path / "a", metadata, [], VALUES.__getitem__)
    found = GgufFile(tmp_path / "a").metadata
    assert found["one"] == 5
    assert found["many"].tolist() == [5, 6]


# Targets --------------------------------------------------------------------------------------------------------------


def test_a_gguf_file_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    write(write(tmp_path / "a.gguf"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"notes\.txt is no GGUF file"):
        write(tmp_path / "notes.txt")
    with pytest.raises(StorageError, match="is a folder"):
        write(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_gguf(tmp_path / "a.gguf", METADATA, TENSORS, {"one": VALUES["one"]}.__getitem__)
    assert list(tmp_path.iterdir()) == []


# Damage ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("whole") / "a.gguf").read_bytes()


@settings(max_examples=150)
@given(data=st.data())
def test_a_file_cut_off_anywhere_is_refused(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(whole) - 31))  # the last 30 bytes are filling
    path = tmp_path_factory.getbasetemp() / "cut.gguf"
    path.write_bytes(whole[:cut])
    with pytest.raises(CheckpointError, match=r"cut\.gguf"):
        GgufFile(path)


@settings(max_examples=200)
@given(data=st.data())
def test_a_changed_byte_gives_another_file_or_a_clear_error(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :])
    try:
        file = GgufFile(path)
        for name in file.tensors:
            file.tensor(name)
    except CheckpointError as error:
        assert "changed.gguf" in str(error)


HEAD = b"GGUF" + struct.pack("<I", 3)
HUGE = 1 << 62


def key(kind: int, value: bytes) -> bytes:
    return HEAD + struct.pack("<QQ", 0, 1) + text("k") + struct.pack("<I", kind) + value


def table(name: str, dimensions: list[int], code: int = 0, start: int = 0) -> bytes:
    row = text(name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return HEAD + struct.pack("<QQ", 1, 0) + row + struct.pack("<IQ", code, start) + bytes(64)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "tensors": (HEAD + struct.pack("<QQ", HUGE, 0) + bytes(64), "announces"),
    "keys": (HEAD + struct.pack("<QQ", 0, HUGE) + bytes(64), "announces"),
    "length of a key": (HEAD + struct.pack("<QQ", 0, 1) + struct.pack("<Q", HUGE) + bytes(64), "announces"),
    "length of a text": (key(8, struct.pack("<Q", HUGE) + bytes(64)), "announces"),
    "numbers of an array": (key(9, struct.pack("<IQ", 4, HUGE) + bytes(64)), "announces"),
    "texts of an array": (key(9, struct.pack("<IQ", 8, HUGE) + bytes(64)), "announces"),
    "array of arrays": (key(9, struct.pack("<IQ", 9, 1) + bytes(64)), "unknown kind 9"),
    "unknown kind": (key(13, bytes(64)), "unknown kind 13"),
    "no UTF-8": (key(8, struct.pack("<Q", 2) + b"\xff\xfe" + bytes(64)), "no UTF-8"),
    "a key twice": (
        HEAD + struct.pack("<QQ", 0, 2) + 2 * (text("k") + struct.pack("<IB", 7, 1)) + bytes(64),
        "'k' twice",
    ),
    "rows": (table("t", [8, HUGE]), "ends at byte"),
    "dimensions": (table("t", [1] * 5), "5 dimensions"),
    "a row of none": (table("t", [0, HUGE]), "shape"),
    "half a block": (table("t", [16, 1], code=8), "blocks of 32"),
    "unknown type": (table("t", [8, 1], code=99), "number 99"),
    "known type without a codec": (table("t", [256, 1], code=10), "Q2_K"),
    "unaligned": (table("t", [1], start=8), "no multiple of 32"),
    "offset": (table("t", [1], start=HUGE), "ends at byte"),
    "version 1": (b"GGUF" + struct.pack("<I", 1) + bytes(64), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + bytes(64), "big-endian"),
    "another file": (b"PK\x03\x04" + bytes(64), "begins with"),
    "an odd alignment": (
        HEAD + struct.pack("<QQ", 0, 1) + text("general.alignment") + struct.pack("<II", 4, 3) + bytes(64),
        "alignment is 3",
    ),
    "empty": (b"", "fewer bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_numbers_that_cannot_be_true_are_refused_before_memory_is_taken(tmp_path: Path, name: str) -> None:
    content, message = HOSTILE[name]
    (tmp_path / "bad.gguf").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=message) as caught:
            GgufFile(tmp_path / "bad.gguf")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert "bad.gguf" in caught.value.message


def test_metadata_has_a_limit_of_its_own(tmp_path: Path) -> None:
    """A sparse file may claim any size; what is read of it as metadata is bounded."""
    with (tmp_path / "bad.gguf").open("wb") as file:
        file.write(key(9, struct.pack("<IQ", 8, MAX_METADATA // 8)))
        file.truncate(MAX_METADATA * 4)
    with pytest.raises(CheckpointError, match="metadata takes more than"):
        GgufFile(tmp_path / "bad.gguf")


@pytest.mark.parametrize(("name", "message"), [("missing", "There is no file"), (".", "is a folder")])
def test_what_is_no_file_is_said(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        GgufFile(tmp_path / name)


def test_an_alignment_of_another_writer_is_followed(tmp_path: Path) -> None:
    head = HEAD + struct.pack("<QQ", 1, 1) + text("general.alignment") + struct.pack("<II", 4, 128)
    head += text("t") + struct.pack("<IQIQ", 1, 2, 0, 0)
    (tmp_path / "a").write_bytes(head + bytes(-len(head) % 128) + struct.pack("<ff", 1.5, 2.5))
    assert GgufFile(tmp_path / "a").tensor("t").tolist() == [1.5, 2.5]


def test_version_2_is_read(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "a").write_bytes(whole[:4] + struct.pack("<I", 2) + whole[8:])
    assert GgufFile(tmp_path / "a").metadata["a.number"] == 7


def test_a_number_of_an_array_is_numpys(tmp_path: Path) -> None:
    """A list of a million Python numbers would take thirty times the bytes of the file."""
    ids: Any = list(range(100))
    write_gguf(tmp_path / "a", {"ids": ("[uint32]", ids)}, [], VALUES.__getitem__)
    assert isinstance(GgufFile(tmp_path / "a").metadata["ids"], np.ndarray)
