"""The GGUF container, version 3 (and 2, which differs in nothing that is read here), little-endian: one file with typed
metadata, a table of tensors, and their bytes.

Nothing here knows what a Llama is. A reader trusts no number of the file: every count and length is compared with the
bytes that are left before anything is allocated, and the metadata may take `MAX_METADATA` at most. Left out: big-endian
files, version 1, models split over several files, and arrays of arrays, which no model file has.

The format: github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

from puna.base.errors import CheckpointError, StorageError
from puna.base.files import atomic_write, format_bytes, require_space
from puna.export.gguf_types import BY_CODE, TensorType, codes, decode_tensor, encode_rows

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
MAX_METADATA = 256 << 20  # bytes; a vocabulary of 128,256 tokens with its merges takes 8 MB
_MAX_DIMENSIONS = 4
_DOWNLOAD = "Download or copy it again."

# Codes and struct formats of the kinds of metadata values.
_SCALARS = {
    "uint8": (0, "B"),
    "int8": (1, "b"),
    "uint16": (2, "H"),
    "int16": (3, "h"),
    "uint32": (4, "I"),
    "int32": (5, "i"),
    "float32": (6, "f"),
    "bool": (7, "?"),
    "uint64": (10, "Q"),
    "int64": (11, "q"),
    "float64": (12, "d"),
}
_STRING, _ARRAY = 8, 9
_FORMATS = dict(_SCALARS.values())

# A value of metadata to write: its kind ("uint32", "string", "[string]", ...) and the value.
Entry = tuple[str, Any]


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor of the table.

    Attributes:
        name: as stored.
        shape: rows first; the file has the dimensions the other way round.
        kind: the number format.
        start: of its bytes; in a file that is read from the file's beginning, in one that is written from the data's.
    """

    name: str
    shape: tuple[int, ...]
    kind: TensorType
    start: int = 0

    @property
    def bytes(self) -> int:
        return self.kind.size(self.shape)


# Writing --------------------------------------------------------------------------------------------------------------


def write_gguf(
    path: Path, metadata: Mapping[str, Entry], tensors: Sequence[TensorEntry], read: Callable[[str], Tensor]
) -> None:
    """Writes a file atomically, one tensor at a time.

    Args:
        path: does not exist, or is a GGUF file, which it replaces.
        metadata: key -> kind and value.
        tensors: in the order in which they are to stand; their starts are set here.
        read: gives a tensor by its stored name.

    Raises:
        StorageError: too little space, or a path with something else at it.
        CheckpointError: numbers that a format cannot hold.
    """
    _check_target(path)
    placed, end = [], 0
    for tensor in tensors:
        placed.append(TensorEntry(tensor.name, tensor.shape, tensor.kind, end))
        end = _aligned(end + tensor.bytes, ALIGNMENT)
    header = _header(metadata, placed)
    require_space(path, len(header) + end)
    with atomic_write(path) as file:
        file.write(header)
        for tensor in placed:
            written = 0
            for part in encode_rows(read(tensor.name), tensor.kind, tensor.name):
                file.write(part)
                written += part.nbytes
            assert written == tensor.bytes, f"{tensor.name}: {written} bytes instead of {tensor.bytes}"
            _pad(file)


def _check_target(path: Path) -> None:
    if path.is_dir():
        raise StorageError(f"{path} is a folder; a GGUF model is one file.", hint=f"Give {path / 'model.gguf'}.")
    if path.exists():
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise StorageError(f"{path} is no GGUF file; it is not overwritten.", hint="Choose another name.")


def _header(metadata: Mapping[str, Entry], tensors: Sequence[TensorEntry]) -> bytes:
    out = bytearray(MAGIC)
    out += struct.pack("<IQQ", VERSION, len(tensors), len(metadata))
    for key, (kind, value) in metadata.items():
        out += _string(key) + _value(kind, value)
    for tensor in tensors:
        dimensions = tensor.shape[::-1]
        out += _string(tensor.name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        out += struct.pack("<IQ", tensor.kind.code, tensor.start)
    return bytes(out) + bytes(-len(out) % ALIGNMENT)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: str, value: Any) -> bytes:
    if kind == "string":
        return struct.pack("<I", _STRING) + _string(value)
    if kind == "[string]":
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_string, value))
    code, letter = _SCALARS[kind.strip("[]")]
    if kind.startswith("["):
        return struct.pack(f"<IIQ{len(value)}{letter}", _ARRAY, code, len(value), *value)
    return struct.pack(f"<I{letter}", code, value)


def _pad(file: IO[bytes]) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


# Reading --------------------------------------------------------------------------------------------------------------


def value_of(metadata: Mapping[str, Any], key: str, kind: str, default: Any = None) -> Any:
    """A value of metadata, if it is of a kind; `default` where it is absent.

    Args:
        metadata: of a file.
        key: of the value.
        kind: "whole number", "number", "text", "list of texts" or "list of whole numbers".
        default: None says nothing of the absence; a caller for whom the key must be there looks.

    Raises:
        CheckpointError: a value of another kind.
    """
    value = metadata.get(key)
    if value is None:
        return default
    if not _KINDS[kind](value):
        raise CheckpointError(f"{key} is {str(value)[:40]!r}; it must be a {kind}.")
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "whole number": _is_whole,
    "number": lambda value: isinstance(value, float) or _is_whole(value),
    "text": lambda value: isinstance(value, str),
    "list of texts": lambda value: isinstance(value, list),
    "list of whole numbers": lambda value: isinstance(value, np.ndarray) and value.dtype.kind in "iu",
}


class _DamageError(Exception):
    """What is wrong with the bytes, before the file's name is added."""


class GgufFile:
    """An open GGUF file: its metadata read, its tensors mapped and decoded when they are asked for.

    Attributes:
        metadata: key -> value. Numbers of an array are a numpy array, strings a list.
        tensors: by stored name, in the order of the file.

    Raises:
        CheckpointError: no GGUF file, one that is cut off, or a table that cannot be true.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._memory = _map(self.path)
        cursor = _Cursor(self._memory)
        try:
            counts = _read_start(cursor)
            self.metadata = dict(_read_metadata(cursor, counts[1]))
            self.tensors = self._read_table(cursor, counts[0])
        except _DamageError as error:
            raise CheckpointError(f"{self.path} is damaged or cut off: {error}.", hint=_DOWNLOAD) from error

    def tensor(self, name: str) -> Tensor:
        """A tensor's numbers: float32, or the stored dtype of a plain format, whose memory is the file's."""
        entry = self.tensors[name]
        return decode_tensor(memoryview(self._memory)[entry.start : entry.start + entry.bytes], entry.kind, entry.shape)

    def _read_table(self, cursor: _Cursor, count: int) -> dict[str, TensorEntry]:
        cursor.require(count, 24)  # a name's length, dimensions, type and offset
        entries = [_read_entry(cursor, self.path) for _ in range(count)]
        alignment = self.metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise _DamageError(f"its alignment is {alignment!r}, which is no power of two")
        first, size = _aligned(cursor.position, alignment), len(self._memory)
        found: dict[str, TensorEntry] = {}
        for entry in entries:
            if entry.name in found:
                raise _DamageError(f"it holds two tensors {entry.name!r}")
            if entry.start % alignment:
                raise _DamageError(f"{entry.name} begins at {entry.start}, no multiple of {alignment}")
            start = first + entry.start
            if start + entry.bytes > size:
                raise _DamageError(f"{entry.name} ends at byte {start + entry.bytes:,}, and the file has {size:,}")
            found[entry.name] = TensorEntry(entry.name, entry.shape, entry.kind, start)
        return found


def _map(path: Path) -> mmap.mmap:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no file {path}.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder; a GGUF model is one file.", hint="Give the file in it.")
        if os.fstat(descriptor).st_size < 24:
            raise CheckpointError(f"{path} has fewer bytes than the header of a GGUF file.", hint=_DOWNLOAD)
        # Private: whoever changes a tensor changes a copy of its page, never the file.
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    finally:
        os.close(descriptor)


class _Cursor:
    """A place in the metadata, which never moves past the end of the file or of what metadata may take."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self.position = 0
        self.end = min(len(memory), MAX_METADATA)

    def require(self, count: int, size: int) -> None:
        """Refuses `count` things of at least `size` bytes each where fewer bytes are left."""
        if count * size <= self.end - self.position:
            return
        if self.end == MAX_METADATA < len(self.memory):
            raise _DamageError(f"its metadata takes more than {format_bytes(MAX_METADATA)}")
        raise _DamageError(
            f"at byte {self.position:,} it announces {count * size:,} bytes and has {self.end - self.position:,}"
        )

    def take(self, size: int) -> bytes:
        self.require(size, 1)
        self.position += size
        return self.memory[self.position - size : self.position]

    def unpack(self, letters: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{letters}", self.take(struct.calcsize(f"<{letters}")))

    def string(self) -> str:
        (length,) = self.unpack("Q")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise _DamageError(f"the text before byte {self.position:,} is no UTF-8") from error


def _read_start(cursor: _Cursor) -> tuple[int, int]:
    """How many tensors and how many keys a file has."""
    magic = cursor.take(4)
    (version,) = cursor.unpack("I")
    if magic != MAGIC:
        raise _DamageError(f"it begins with {magic!r}, a GGUF file with {MAGIC!r}")
    if version not in (2, VERSION):
        swapped = int.from_bytes(version.to_bytes(4, "big"), "little")
        what = "a big-endian file" if swapped in (2, VERSION) else f"version {version}"
        raise _DamageError(f"it is {what}; Puna reads little-endian versions 2 and {VERSION}")
    tensors, keys = cursor.unpack("QQ")
    return tensors, keys


def _read_metadata(cursor: _Cursor, count: int) -> Iterator[tuple[str, Any]]:
    cursor.require(count, 13)  # a key's length, the kind, a value of one byte
    seen: set[str] = set()
    for _ in range(count):
        key = cursor.string()
        if key in seen:
            raise _DamageError(f"it holds the key {key!r} twice")
        seen.add(key)
        (kind,) = cursor.unpack("I")
        yield key, _read_array(cursor, key) if kind == _ARRAY else _read_scalar(cursor, kind, key)


def _read_scalar(cursor: _Cursor, kind: int, key: str) -> Any:
    if kind == _STRING:
        return cursor.string()
    if kind not in _FORMATS:
        raise _DamageError(f"{key} is a value of the unknown kind {kind}")
    (value,) = cursor.unpack(_FORMATS[kind])
    # The shortest decimal that float32 takes for this number: 1e-05, not 9.999999747378752e-06.
    return float(str(np.float32(value))) if _FORMATS[kind] == "f" else value


def _read_array(cursor: _Cursor, key: str) -> Any:
    kind, count = cursor.unpack("IQ")
    if kind == _STRING:
        cursor.require(count, 8)
        return [cursor.string() for _ in range(count)]
    if kind not in _FORMATS:
        raise _DamageError(f"{key} is an array of the unknown kind {kind}")
    dtype = np.dtype(f"<{_FORMATS[kind]}" if _FORMATS[kind] != "?" else "?")
    cursor.require(count, dtype.itemsize)
    return np.frombuffer(cursor.take(count * dtype.itemsize), dtype=dtype)


def _read_entry(cursor: _Cursor, path: Path) -> TensorEntry:
    name = cursor.string()
    (dimensions,) = cursor.unpack("I")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise _DamageError(f"{name!r} has {dimensions} dimensions")
    shape = cursor.unpack(f"{dimensions}Q")[::-1]
    if 0 in shape:
        raise _DamageError(f"{name!r} has the shape {shape}")
    code, start = cursor.unpack("IQ")
    if code not in BY_CODE:
        kind = next((known for known, number in codes().items() if number == code), f"number {code}")
        raise CheckpointError(
            f"{path} stores {name} as type {kind}; Puna reads {', '.join(kind.name for kind in BY_CODE.values())}.",
            hint="Take another variant of the model, such as Q8_0 or Q4_K_M.",
        )
    entry = TensorEntry(name, shape, BY_CODE[code], start)
    if shape[-1] % (block := entry.kind.numbers):
        raise _DamageError(f"{name} has rows of {shape[-1]} numbers, and {entry.kind.name} blocks of {block}")
    return entry
