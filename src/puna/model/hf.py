"""Weights in Hugging Face's layout: one safetensors file, or several with an index.

Tensors are mapped into memory privately: a page is read when it is first used, and one that is changed is copied and
never reaches the file. The safetensors library is left aside here for three things that it does not do: it cannot
map one file twice (two models of one checkpoint would share their weights), it holds a whole file in memory to write
it, and its errors do not say how many bytes are missing.

The format (https://huggingface.co/docs/safetensors): eight bytes with the length of the header, the header in JSON,
then the tensors' bytes without gaps, to which the header's offsets refer.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puna.base.errors import CheckpointError
from puna.base.files import format_bytes, read_json, write_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_SHARD_BYTES = 5_000_000_000

_CODES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    # What quantised layers store, and the shape that goes with packed ones.
    "F8_E4M3": torch.float8_e4m3fn,
    "I8": torch.int8,
    "I32": torch.int32,
    "I64": torch.int64,
}
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_CODE_OF = {dtype: code for code, dtype in _CODES.items()}
_LONGEST_HEADER = 100_000_000  # the limit of the safetensors library
_DOWNLOAD = "Download or copy it again."
_INCOMPLETE = "The download may be incomplete: fetch it again."


@dataclass(frozen=True, slots=True)
class Spec:
    """A tensor without its numbers."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.numbers * self.dtype.itemsize


def hf_name(name: str) -> str:
    """Our name of a parameter as Hugging Face's: all but the output matrix belong to `model`."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def our_name(name: str) -> str:
    return name.removeprefix("model.")


class _File:
    """An open safetensors file. It stays readable when it is deleted or replaced under its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise CheckpointError(f"There is no file {path}.", hint=_DOWNLOAD) from error
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
        weakref.finalize(self, os.close, self.descriptor)
        size = os.fstat(self.descriptor).st_size
        header, first = self._header(size)
        self.places: dict[str, tuple[Spec, int]] = {}
        try:
            for name, entry in header.items():
                if name != "__metadata__":
                    self.places[name] = self._place(name, entry, first)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path} has a damaged header: {error!r}.", hint=_DOWNLOAD) from error
        end = max((start + spec.bytes for spec, start in self.places.values()), default=first)
        if end != size:
            raise self._wrong_size(end, size)

    def _header(self, size: int) -> tuple[dict[str, Any], int]:
        """The parsed header, and where the tensors' bytes begin."""
        start = os.pread(self.descriptor, 8, 0)
        length = int.from_bytes(start, "little")
        if os.pread(self.descriptor, 24, 0).startswith(b"version https://git-lfs"):
            raise CheckpointError(f"{self.path} is a Git LFS pointer, not the file itself.", hint="Run: git lfs pull")
        if len(start) < 8 or length > _LONGEST_HEADER:
            raise CheckpointError(f"{self.path} ({format_bytes(size)}) is no safetensors file.", hint=_DOWNLOAD)
        if 8 + length > size:
            raise self._wrong_size(8 + length, size)
        try:
            header = json.loads(os.pread(self.descriptor, length, 8))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.path} has a damaged header: {error}.", hint=_DOWNLOAD) from error
        if not isinstance(header, dict):
            raise CheckpointError(f"{self.path} has a damaged header: it is no table.", hint=_DOWNLOAD)
        return header, 8 + length

    def _place(self, name: str, entry: Mapping[str, Any], first: int) -> tuple[Spec, int]:
        if entry["dtype"] not in _CODES:
            raise CheckpointError(
                f"{self.path} stores {name} as {entry['dtype']}; Puna reads {', '.join(_CODES)}.",
                hint="Use the bfloat16 release of the model.",
            )
        spec = Spec(tuple(map(int, entry["shape"])), _CODES[entry["dtype"]])
        start, end = map(int, entry["data_offsets"])
        if min(start, *spec.shape, 0) < 0 or end - start != spec.bytes:
            raise ValueError(f"{name} has shape {list(spec.shape)} and {end - start} bytes")
        return spec, first + start

    def _wrong_size(self, expected: int, found: int) -> CheckpointError:
        what = "cut off" if found < expected else "too long"
        return CheckpointError(
            f"{self.path} is {what}: it has {found:,} bytes and its header describes {expected:,}.", hint=_DOWNLOAD
        )

    def map(self) -> mmap.mmap:
        return mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_COPY)


class MappedWeights(Mapping[str, Tensor]):
    """Tensors of safetensors files by our names, read when they are used.

    Tensors of one `MappedWeights` share memory and may be changed in place; `copy` gives others over the same files.
    A file is unmapped when none of its tensors is left, so that going through all of them needs the memory of one.
    """

    def __init__(self, places: Mapping[str, tuple[_File, str]]) -> None:
        self._places = dict(places)
        self._maps: weakref.WeakValueDictionary[_File, mmap.mmap] = weakref.WeakValueDictionary()

    def __getitem__(self, name: str) -> Tensor:
        file, stored = self._places[name]
        spec, start = file.places[stored]
        if spec.numbers == 0:
            return torch.empty(spec.shape, dtype=spec.dtype)
        memory = self._maps.get(file)
        if memory is None:
            memory = self._maps[file] = file.map()
        if start % spec.dtype.itemsize == 0:
            return torch.frombuffer(memory, dtype=spec.dtype, count=spec.numbers, offset=start).view(spec.shape)
        # The format does not promise alignment, and vector instructions want it.
        raw = torch.frombuffer(memory, dtype=torch.uint8, count=spec.bytes, offset=start)
        return raw.clone().view(spec.dtype).view(spec.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def spec(self, name: str) -> Spec:
        file, stored = self._places[name]
        return file.places[stored][0]

    def copy(self) -> MappedWeights:
        return MappedWeights(self._places)

    def without(self, names: Collection[str]) -> MappedWeights:
        return MappedWeights({name: place for name, place in self._places.items() if name not in names})


def read_file(path: Path) -> MappedWeights:
    """Maps one safetensors file, under the names that are stored."""
    file = _File(path)
    return MappedWeights({name: (file, name) for name in file.places})


def read_weights(folder: Path) -> MappedWeights:
    """Maps the weights of a folder; nothing but headers is read.

    Raises:
        CheckpointError: no weights, pickled weights, an index that does not match its files, or a damaged file.
    """
    if (folder / SINGLE).exists():
        files = [_File(folder / SINGLE)]
    elif (folder / INDEX).exists():
        files = _indexed(folder)
    else:
        raise _no_weights(folder)
    places: dict[str, tuple[_File, str]] = {}
    for file in files:
        for stored in file.places:
            name = our_name(stored)
            if name in places:
                raise CheckpointError(
                    f"{folder} holds {stored} twice: in {places[name][0].path.name}, {file.path.name}."
                )
            places[name] = file, stored
    return MappedWeights(places)


def _no_weights(folder: Path) -> CheckpointError:
    expected = f"expected {SINGLE} or {INDEX}"
    if pickled := sorted(folder.glob("pytorch_model*.bin")):
        return CheckpointError(
            f"{folder} holds only pickled weights ({pickled[0].name}); {expected}.",
            hint="Use the release of the model in safetensors.",
        )
    return CheckpointError(f"{folder} holds no weights; {expected}.", hint=_INCOMPLETE)


def _indexed(folder: Path) -> list[_File]:
    """The files that an index names, with what it says of them checked."""
    index = read_json(folder / INDEX)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{folder / INDEX} has no weight_map.", hint=_DOWNLOAD)
    names = sorted({str(file) for file in weight_map.values()})
    if elsewhere := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{folder / INDEX} names files of other folders: {first_few(elsewhere)}.")
    if missing := [name for name in names if not (folder / name).exists()]:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of the {len(names)} files that its index names: {first_few(missing)}.",
            hint=_INCOMPLETE,
        )
    files = {name: _File(folder / name) for name in names}
    if lost := [stored for stored, file in weight_map.items() if stored not in files[str(file)].places]:
        raise CheckpointError(
            f"The index of {folder} names {len(lost)} tensors that its files do not hold: {first_few(lost)}.",
            hint=_DOWNLOAD,
        )
    return list(files.values())


def first_few(names: Collection[str], count: int = 3) -> str:
    """The first few of many names, for a message."""
    shown = ", ".join(list(names)[:count])
    return f"{shown}, ..." if len(names) > count else shown


def differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """How the names and shapes of tensors differ, as a part of a sentence; "" where they are the same."""
    faults = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of the wrong shape": [
            f"{name} {found[name]} instead of {shape}"
            for name, shape in expected.items()
            if found.get(name, shape) != shape
        ],
    }
    return "; ".join(
        f"{len(names)} {'tensor is' if len(names) == 1 else 'tensors are'} {what} ({first_few(names)})"
        for what, names in faults.items()
        if names
    )


def write_weights(
    folder: Path, specs: Mapping[str, Spec], read: Callable[[str], Tensor], max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Writes safetensors files into `folder`, one tensor at a time.

    Args:
        folder: exists.
        specs: our name -> shape and dtype to write; files are filled in this order.
        read: gives a tensor of that shape by our name; it is converted to that dtype.
        max_shard_bytes: size above which weights are spread over several files; a larger tensor has one of its own.
    """
    shards: list[dict[str, Spec]] = [{}]
    filled = 0
    for name, spec in specs.items():
        if shards[-1] and filled + spec.bytes > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = spec
        filled += spec.bytes
    if len(shards) == 1:
        write_file(folder / SINGLE, _stored(shards[0]), lambda stored: read(our_name(stored)))
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(folder / file, _stored(shard), lambda stored: read(our_name(stored)))
        weight_map |= dict.fromkeys(_stored(shard), file)
    total = sum(spec.bytes for spec in specs.values())
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def _stored(specs: Mapping[str, Spec]) -> dict[str, Spec]:
    return {hf_name(name): spec for name, spec in specs.items()}


def write_file(path: Path, specs: Mapping[str, Spec], read: Callable[[str], Tensor]) -> None:
    """Writes one safetensors file, one tensor at a time; names are as stored."""
    # Wide numbers first keep all of them aligned.
    specs = dict(sorted(specs.items(), key=lambda item: -item[1].dtype.itemsize))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, spec in specs.items():
        if spec.dtype not in _CODE_OF:
            raise CheckpointError(f"{name} is {spec.dtype}; Puna writes {', '.join(map(str, _CODE_OF))}.")
        start, end = end, end + spec.bytes
        header[name] = {"dtype": _CODE_OF[spec.dtype], "shape": list(spec.shape), "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for name, spec in specs.items():
            # No name holds the tensor: one that is mapped leaves memory before the next comes in.
            file.write(_raw(read(name).detach().to(device="cpu", dtype=spec.dtype)))


def _raw(tensor: Tensor) -> memoryview:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data


def replaceable(folder: Path, markers: Collection[str]) -> bool:
    """Whether an artifact may take the place of `folder`: it is free, empty, or holds a file of that kind."""
    if not folder.exists():
        return True
    return folder.is_dir() and (not any(folder.iterdir()) or any((folder / name).exists() for name in markers))
