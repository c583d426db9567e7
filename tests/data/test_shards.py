from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.base.card import CARD
from puna.base.errors import ArtifactError, InputError
from puna.data.shards import Segment, TokenShards, write_shards


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards")


def plain(*segments: list[int]) -> list[Segment]:
    return [(np.array(ids, dtype=np.int64), None) for ids in segments]


vocabularies = st.sampled_from([1, 256, 1 << 16, (1 << 16) + 1, 128_256])


@settings(max_examples=40)
@given(data=st.data(), vocab_size=vocabularies, masked=st.booleans())
def test_segments_come_back_as_they_were_written(
    scratch: Path, data: st.DataObject, vocab_size: int, masked: bool
) -> None:
    tokens = st.tuples(st.integers(0, vocab_size - 1), st.booleans())
    written = data.draw(st.lists(st.lists(tokens, max_size=8), min_size=1, max_size=6).filter(any))
    segments = [
        (np.array([t for t, _ in s], dtype=np.int64), np.array([m for _, m in s], dtype=bool) if masked else None)
        for s in written
    ]
    shards = write_shards(scratch / "tokens", iter(segments), vocab_size, {"tokenizer": "abc"})
    assert len(shards) == len(written)
    assert shards.tokens == sum(map(len, written))
    assert shards.lengths.tolist() == [len(s) for s in written]
    assert shards.masked == masked
    assert shards.card.config["tokenizer"] == "abc"
    assert shards.card.metrics == {"segments": len(written), "tokens": shards.tokens}
    for i, segment in enumerate(written):
        start = data.draw(st.integers(0, len(segment)))
        end = data.draw(st.integers(start, len(segment) + 2))
        assert shards.ids(i, start, end).tolist() == [t for t, _ in segment[start:end]]
        assert shards.mask(i, start, end).tolist() == [m or not masked for _, m in segment[start:end]]


@pytest.mark.parametrize(("vocab_size", "width"), [(1 << 16, 2), ((1 << 16) + 1, 4), (128_256, 4), (256, 2)])
def test_an_id_takes_the_bytes_that_its_vocabulary_needs(tmp_path: Path, vocab_size: int, width: int) -> None:
    shards = write_shards(tmp_path / "a", plain([0, vocab_size - 1]), vocab_size)
    assert (tmp_path / "a" / "tokens.bin").stat().st_size == 2 * width
    assert shards.ids(0, 0, 2).tolist() == [0, vocab_size - 1]


def test_only_masked_shards_have_a_mask_file(tmp_path: Path) -> None:
    write_shards(tmp_path / "plain", plain([1]), 10)
    write_shards(tmp_path / "masked", [(np.array([1]), np.array([True]))], 10)
    assert sorted(p.name for p in (tmp_path / "plain").iterdir()) == [CARD, "offsets.npy", "tokens.bin"]
    assert sorted(p.name for p in (tmp_path / "masked").iterdir()) == [CARD, "mask.bin", "offsets.npy", "tokens.bin"]


def test_shards_are_mapped_and_cannot_be_written_by_accident(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "a", plain([1, 2]), 10)
    with pytest.raises(ValueError, match="read-only"):
        shards.ids(0, 0, 2)[0] = 5


@pytest.mark.parametrize(
    ("ids", "named"), [([1, 10], "10"), ([3, -1, 9], "-1"), ([10**9], "1000000000"), ([-(10**9), 20], "20")]
)
def test_an_id_outside_the_vocabulary_is_refused_by_value_and_nothing_is_written(
    tmp_path: Path, ids: list[int], named: str
) -> None:
    with pytest.raises(InputError, match=f"Segment 1 holds token id {named}; the vocabulary has 10"):
        write_shards(tmp_path / "a", plain([1, 2], ids), 10)
    assert list(tmp_path.iterdir()) == []


def test_all_segments_have_masks_of_their_length_or_none_has() -> None:
    with_mask, without = (np.array([1, 2]), np.array([True, False])), (np.array([1]), None)
    short = (np.array([1, 2]), np.array([True]))
    for segments in ([with_mask, without], [without, with_mask], [short]):
        with pytest.raises(InputError, match=r"Segment \d has \d ids and (no|a) mask"):
            write_shards(Path("never"), segments, 10)


@pytest.mark.parametrize("segments", [[], plain([]), plain([], [])])
def test_no_tokens_are_no_shards(tmp_path: Path, segments: list[Segment]) -> None:
    with pytest.raises(InputError, match="no tokens"):
        write_shards(tmp_path / "a", segments, 10)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_breaks_off_leaves_the_old_shards(tmp_path: Path) -> None:
    def breaks_off() -> Iterator[Segment]:
        yield from plain([4, 5], [6])
        raise KeyboardInterrupt

    write_shards(tmp_path / "a", plain([1, 2, 3]), 10)
    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path / "a", breaks_off(), 10)
    assert TokenShards(tmp_path / "a").ids(0, 0, 3).tolist() == [1, 2, 3]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["tokens.bin", "mask.bin", "offsets.npy"])
def test_a_truncated_or_missing_file_is_an_artifact_error(tmp_path: Path, name: str) -> None:
    segments = [(np.arange(5), np.ones(5, dtype=bool)), (np.arange(3), np.zeros(3, dtype=bool))]
    whole = write_shards(tmp_path / "a", segments, 1 << 17)
    assert whole.tokens == 8
    path = tmp_path / "a" / name
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(ArtifactError, match="token shards in"):
            TokenShards(tmp_path / "a")
    path.write_bytes(data + bytes(4))
    if name != "offsets.npy":  # numpy reads what the header promises
        with pytest.raises(ArtifactError, match="their index says 8"):
            TokenShards(tmp_path / "a")
    path.unlink()
    with pytest.raises(ArtifactError):
        TokenShards(tmp_path / "a")


@pytest.mark.parametrize("config", [{}, {"dtype": "uint16"}, {"dtype": "nonsense", "masked": False}, {"dtype": 3}])
def test_a_card_of_something_else_is_an_artifact_error(tmp_path: Path, config: dict[str, object]) -> None:
    write_shards(tmp_path / "a", plain([1]), 10)
    card = json.loads((tmp_path / "a" / CARD).read_text())
    (tmp_path / "a" / CARD).write_text(json.dumps({**card, "config": config}))
    with pytest.raises(ArtifactError):
        TokenShards(tmp_path / "a")


@pytest.mark.parametrize(
    "offsets", [np.zeros(0), np.zeros((2, 2)), np.array([0, 2, 1, 2]), np.array([1, 2]), np.array(2)]
)
def test_an_index_that_does_not_rise_from_zero_is_an_artifact_error(tmp_path: Path, offsets: np.ndarray) -> None:
    write_shards(tmp_path / "a", plain([1, 2]), 10)
    np.save(tmp_path / "a" / "offsets.npy", offsets)
    with pytest.raises(ArtifactError):
        TokenShards(tmp_path / "a")


def test_a_missing_folder_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="There is no file"):
        TokenShards(tmp_path / "absent")
