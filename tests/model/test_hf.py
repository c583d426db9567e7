from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.base.errors import CheckpointError
from puna.model import hf
from puna.model.hf import MappedWeights, Spec, hf_name, our_name, read_file, read_weights, write_file, write_weights

safetensors_torch = pytest.importorskip("safetensors.torch")

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def tensors_of(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = ["embed_tokens.weight", "layers.0.mlp.up_proj.weight", "norm.weight", "lm_head.weight"]
    return {name: torch.randn(4, 6, generator=generator) for name in names}


def specs_of(tensors: dict[str, torch.Tensor]) -> dict[str, Spec]:
    return {name: Spec(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def write(folder: Path, tensors: dict[str, torch.Tensor], max_shard_bytes: int = 1 << 30) -> None:
    write_weights(folder, specs_of(tensors), tensors.__getitem__, max_shard_bytes)


def rewrite_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a file's header and leaves its tensors as they are."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + raw[8 + length :])


@pytest.mark.parametrize("name", ["embed_tokens.weight", "layers.3.self_attn.q_proj.weight", "lm_head.weight"])
def test_names_round_trip(name: str) -> None:
    assert our_name(hf_name(name)) == name
    assert our_name(name) == name  # files of a bare LlamaModel have no prefix
    assert hf_name(name).startswith("model.") == (name != "lm_head.weight")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_safetensors_library_reads_what_we_write(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"a": torch.randn(3, 5).to(dtype), "b": torch.randn(7).to(dtype), "c": torch.randn(2, 2).to(dtype).T}
    write_file(tmp_path / "x.safetensors", specs_of(tensors), tensors.__getitem__)
    theirs = safetensors_torch.load_file(tmp_path / "x.safetensors")
    assert theirs.keys() == tensors.keys()
    assert all(torch.equal(theirs[name], tensors[name]) for name in tensors)
    with safetensors_torch.safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_we_read_what_the_safetensors_library_writes(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"a": torch.randn(3, 5).to(dtype), "b": torch.randn(7).to(dtype), "none": torch.empty(0, 4).to(dtype)}
    safetensors_torch.save_file(tensors, tmp_path / "x.safetensors")
    ours = read_file(tmp_path / "x.safetensors")
    assert all(torch.equal(ours[name], tensors[name]) for name in tensors)
    assert ours.spec("a") == Spec((3, 5), dtype)


@given(
    shapes=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple), min_size=1, max_size=8),
    kinds=st.lists(st.sampled_from(DTYPES), min_size=8, max_size=8),
    limit=st.integers(1, 600),
)
@settings(max_examples=40, deadline=None)
def test_any_tensors_survive_any_sharding(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, ...]], kinds: list[torch.dtype], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    tensors = {f"t{i}": torch.randn(shape).to(kind) for i, (shape, kind) in enumerate(zip(shapes, kinds, strict=False))}
    write(folder, tensors, limit)
    ours = read_weights(folder)
    assert set(ours) == set(tensors)
    assert all(torch.equal(ours[name], tensors[name]) for name in tensors)
    for path in folder.glob("*.safetensors"):
        held = safetensors_torch.load_file(path)
        assert len(held) == 1 or sum(t.nbytes for t in held.values()) <= limit


def test_shards_are_named_and_indexed_as_transformers_does(tmp_path: Path) -> None:
    tensors = tensors_of()
    write(tmp_path, tensors, max_shard_bytes=200)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads((tmp_path / hf.INDEX).read_text())
    assert index["metadata"]["total_size"] == 4 * 24 * 4
    assert index["weight_map"]["model.embed_tokens.weight"] == "model-00001-of-00002.safetensors"
    assert index["weight_map"]["lm_head.weight"] == "model-00002-of-00002.safetensors"


def test_conversion_while_writing(tmp_path: Path) -> None:
    tensors = tensors_of()
    specs = {name: Spec(tuple(t.shape), torch.bfloat16) for name, t in tensors.items()}
    write_weights(tmp_path, specs, tensors.__getitem__)
    ours = read_weights(tmp_path)
    assert all(torch.equal(ours[name], tensors[name].bfloat16()) for name in tensors)
    with pytest.raises(CheckpointError, match=r"torch\.int16"):
        write_weights(tmp_path, {"norm.weight": Spec((4, 6), torch.int16)}, tensors.__getitem__)


def test_changes_stay_in_memory_and_copies_apart(tmp_path: Path) -> None:
    write(tmp_path, tensors_of())
    before = (tmp_path / hf.SINGLE).read_bytes()
    first = read_weights(tmp_path)
    second = first.copy()
    kept = first["norm.weight"]
    kept.add_(1)
    assert torch.equal(first["norm.weight"], kept)  # the same memory
    assert torch.equal(second["norm.weight"], tensors_of()["norm.weight"])
    assert (tmp_path / hf.SINGLE).read_bytes() == before


def test_a_replaced_or_deleted_file_stays_readable(tmp_path: Path) -> None:
    write(tmp_path, tensors_of(0))
    weights = read_weights(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    write(other, tensors_of(1))
    (other / hf.SINGLE).replace(tmp_path / hf.SINGLE)
    assert torch.equal(weights["norm.weight"], tensors_of(0)["norm.weight"])
    assert torch.equal(read_weights(tmp_path)["norm.weight"], tensors_of(1)["norm.weight"])
    (tmp_path / hf.SINGLE).unlink()
    assert torch.equal(weights.copy()["lm_head.weight"], tensors_of(0)["lm_head.weight"])


def test_files_are_closed_when_nobody_needs_them(tmp_path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("this system does not list a process's open files")
    write(tmp_path, tensors_of(), max_shard_bytes=1)
    gc.collect()
    before = len(list(descriptors.iterdir()))
    weights = read_weights(tmp_path)
    tensor = weights["norm.weight"]
    assert len(list(descriptors.iterdir())) > before
    del weights
    assert torch.equal(tensor, tensors_of()["norm.weight"])
    del tensor
    gc.collect()
    assert len(list(descriptors.iterdir())) == before


def test_unaligned_tensors_are_read(tmp_path: Path) -> None:
    write(tmp_path, tensors_of())
    path = tmp_path / hf.SINGLE
    rewrite_header(path, lambda header: header["__metadata__"].update(padding="x"))
    raw = path.read_bytes()
    if (8 + int.from_bytes(raw[:8], "little")) % 4 == 0:
        rewrite_header(path, lambda header: header["__metadata__"].update(padding="xy"))
    weights = read_weights(tmp_path)
    assert all(torch.equal(weights[name], tensor) for name, tensor in tensors_of().items())


def test_the_single_file_goes_before_an_index(tmp_path: Path) -> None:
    write(tmp_path, tensors_of(0), max_shard_bytes=1)
    write(tmp_path, tensors_of(1))
    assert torch.equal(read_weights(tmp_path)["norm.weight"], tensors_of(1)["norm.weight"])


def test_a_cut_off_file_says_how_much_is_missing(tmp_path: Path) -> None:
    write(tmp_path, tensors_of())
    path = tmp_path / hf.SINGLE
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError) as caught:
        read_weights(tmp_path)
    assert f"{len(whole) - 100:,}" in str(caught.value)
    assert f"{len(whole):,}" in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 3, 8, 20])
def test_a_file_cut_off_in_its_header_is_refused(tmp_path: Path, keep: int) -> None:
    write(tmp_path, tensors_of())
    path = tmp_path / hf.SINGLE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_weights(tmp_path)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    for content in (raw, len(raw).to_bytes(8, "little") + raw):
        path.write_bytes(content)
        try:
            assert isinstance(read_file(path), MappedWeights)
        except CheckpointError as error:
            assert "fuzz.safetensors" in error.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: h["model.norm.weight"].update(dtype="C64"), "C64"),
        (lambda h: h["model.norm.weight"].pop("dtype"), "damaged header"),
        (lambda h: h["model.norm.weight"].update(shape=[5, 6]), "damaged header"),
        (lambda h: h["model.norm.weight"].update(shape="abc"), "damaged header"),
        (lambda h: h["model.norm.weight"].update(shape=[-4, -6]), "damaged header"),
        (lambda h: h["model.norm.weight"].update(data_offsets=[-96, 0]), "damaged header"),
        (lambda h: h.update({"model.norm.weight": 3}), "damaged header"),
        (lambda h: h["model.norm.weight"].update(data_offsets=[10_000, 10_096]), "cut off"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str) -> None:
    write(tmp_path, tensors_of())
    rewrite_header(tmp_path / hf.SINGLE, change)
    with pytest.raises(CheckpointError, match=said):
        read_weights(tmp_path)


def test_a_git_lfs_pointer_is_recognised(tmp_path: Path) -> None:
    (tmp_path / hf.SINGLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read_weights(tmp_path)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_weights(tmp_path)
    (tmp_path / "pytorch_model-00001-of-00002.bin").touch()
    with pytest.raises(CheckpointError, match=r"pytorch_model-00001-of-00002\.bin"):
        read_weights(tmp_path)


def test_an_index_must_match_its_files(tmp_path: Path) -> None:
    write(tmp_path, tensors_of(), max_shard_bytes=1)
    index = json.loads((tmp_path / hf.INDEX).read_text())
    lost = index["weight_map"]["model.norm.weight"]
    (tmp_path / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=f"lacks 1 of the 4 files.*{lost}"):
        read_weights(tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / lost)

    index["weight_map"]["model.layers.9.weight"] = lost
    (tmp_path / hf.INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"names 1 tensors.*layers\.9"):
        read_weights(tmp_path)

    for broken in ({}, [], {"weight_map": {}}, {"weight_map": ["x"]}):
        (tmp_path / hf.INDEX).write_text(json.dumps(broken))
        with pytest.raises(CheckpointError, match="no weight_map"):
            read_weights(tmp_path)

    (tmp_path / hf.INDEX).write_text(json.dumps({"weight_map": {"norm.weight": "../../secret"}}))
    with pytest.raises(CheckpointError, match=r"other folders: \.\./\.\./secret"):
        read_weights(tmp_path)
    (tmp_path / hf.INDEX).write_text(json.dumps({"weight_map": {"norm.weight": 3}}))
    with pytest.raises(CheckpointError, match="lacks 1 of the 1 files"):
        read_weights(tmp_path)


def test_files_may_be_links_as_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    write(blobs, tensors_of(), max_shard_bytes=200)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert torch.equal(read_weights(snapshot)["norm.weight"], tensors_of()["norm.weight"])


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name, stored in (("a", ["model.norm.weight"]), ("b", ["lm_head.weight", "norm.weight"])):
        tensors = {key: torch.ones(2) for key in stored}
        write_file(tmp_path / f"{name}.safetensors", specs_of(tensors), tensors.__getitem__)
    weight_map = {"model.norm.weight": "a.safetensors", "lm_head.weight": "b.safetensors"}
    (tmp_path / hf.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=r"twice: in a\.safetensors, b\.safetensors"):
        read_weights(tmp_path)


def test_differences_are_counted_and_the_first_named() -> None:
    expected = {f"t{i}": (2, 2) for i in range(9)}
    assert hf.differences(expected, dict(expected)) == ""
    found = {**{f"t{i}": (2, 2) for i in range(4)}, "t0": (3, 2), "extra": (1,)}
    said = hf.differences(expected, found)
    assert "5 tensors are missing (t4, t5, t6, ...)" in said
    assert "1 tensor is unexpected (extra)" in said
    assert "1 tensor is of the wrong shape (t0 (3, 2) instead of (2, 2))" in said


def test_which_folders_may_be_replaced(tmp_path: Path) -> None:
    assert hf.replaceable(tmp_path / "new", ["config.json"])
    assert hf.replaceable(tmp_path, ["config.json"])
    (tmp_path / "diary.txt").touch()
    assert not hf.replaceable(tmp_path, ["config.json"])
    assert not hf.replaceable(tmp_path / "diary.txt", ["config.json"])
    (tmp_path / "config.json").touch()
    assert hf.replaceable(tmp_path, ["config.json"])
