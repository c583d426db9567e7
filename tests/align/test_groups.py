from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.align.groups import Group, GroupBatch, GroupLoader, pack_groups
from puna.base.errors import ConfigError, InputError

SHAPES = [(3, 4, 5), (2, 6, 1), (5, 3, 3, 3), (1, 8, 8), (4, 2, 2)]


def segments_of(batch: GroupBatch[np.ndarray]) -> list[tuple[list[int], list[int]]]:
    """Ids and marked targets of each segment, in the order of the rows."""
    found = []
    for row in range(len(batch.ids)):
        for number in range(batch.document_ids[row].max() + 1):
            here = batch.document_ids[row] == number
            marked = here & batch.loss_mask[row]
            found.append((batch.ids[row][here].tolist(), batch.targets[row][marked].tolist()))
    return found


def test_every_group_is_there_once_and_whole(make_groups: Callable) -> None:
    shards, groups = make_groups(SHAPES)
    loader = GroupLoader(shards, groups, 32, 64, 32, references=np.arange(len(shards)).astype(np.float32))
    batch = loader.batch(np.arange(loader.packing.rows))
    found = segments_of(batch)
    assert loader.packing.left_out == 0
    assert sorted(batch.reference_S.tolist()) == list(range(len(shards)))
    for (ids, targets), reference in zip(found, batch.reference_S.tolist(), strict=True):
        segment = int(reference)
        assert ids == shards.ids(segment, 0, 1000).tolist()
        assert targets == shards.ids(segment, 0, 1000)[shards.mask(segment, 0, 1000)].tolist()
    for number in range(batch.group_S.max() + 1):
        here = batch.group_S == number
        group = next(g for g in groups if batch.reference_S[here][0] in g.segments)
        assert batch.reference_S[here].tolist() == list(group.segments)
        assert batch.rank_S[here].tolist() == list(range(len(group.segments)))
        assert set(batch.label_S[here]) == {group.label}
    assert batch.group_S.tolist() == sorted(batch.group_S.tolist())


def test_a_step_depends_on_seed_and_number_alone(make_groups: Callable) -> None:
    shards, groups = make_groups(SHAPES * 3)
    loader, again = (GroupLoader(shards, groups, 40, 80, 40, seed=3) for _ in range(2))
    for step in (5, 0, 2):
        for a, b in zip(loader.micro_batches(step), again.micro_batches(step), strict=True):
            assert (a.ids == b.ids).all()
    other = GroupLoader(shards, groups, 40, 80, 40, seed=4)
    assert any((a.ids != b.ids).any() for a, b in zip(loader.micro_batches(0), other.micro_batches(0), strict=True))
    assert len(loader.micro_batches(0)) == 2


def test_a_step_over_the_end_of_an_epoch_keeps_its_groups_apart(make_groups: Callable) -> None:
    shards, groups = make_groups([(3, 4, 5)])
    (batch,) = GroupLoader(shards, groups, 16, 48, 48).micro_batches(0)
    assert batch.ids.shape == (3, 16)
    assert batch.group_S.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.rank_S.tolist() == [0, 1] * 3


def test_groups_that_are_longer_than_a_row_are_counted(make_groups: Callable) -> None:
    shards, groups = make_groups([(3, 4, 5), (10, 20, 30)])
    loader = GroupLoader(shards, groups, 20, 20, 20)
    assert (loader.packing.left_out, loader.packing.rows) == (1, 1)
    with pytest.raises(InputError, match=r"None of 2 groups .* 10 tokens; the shortest has 15"):
        GroupLoader(shards, groups, 10, 10, 10)


def test_what_cannot_be_packed_is_refused(make_groups: Callable) -> None:
    shards, groups = make_groups([(3, 4, 5)])
    with pytest.raises(ConfigError, match="batch_tokens is 10"):
        GroupLoader(shards, groups, 20, 10, 10)
    with pytest.raises(InputError, match="3 references for 2 segments"):
        GroupLoader(shards, groups, 20, 20, 10, references=np.zeros(3))
    with pytest.raises(InputError, match="no segments"):
        pack_groups(shards.lengths, [Group(())], 20)


@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=3), min_size=1, max_size=30))
def test_no_token_is_lost_whatever_the_lengths(shapes: list[list[int]]) -> None:
    lengths = np.array([length for group in shapes for length in group])
    ends = np.cumsum([len(group) for group in shapes])
    groups = [Group(tuple(range(end - len(g), end))) for g, end in zip(shapes, ends.tolist(), strict=True)]
    fitting = [i for i, group in enumerate(shapes) if sum(group) <= 24]
    if not fitting:
        return
    packing, group_P = pack_groups(lengths, groups, 24)
    assert packing.left_out == len(shapes) - len(fitting)
    assert sorted(packing.pieces[:, 0].tolist()) == sorted(s for i in fitting for s in groups[i].segments)
    assert packing.tokens == sum(sum(shapes[i]) for i in fitting)
    for row in range(packing.rows):
        here = slice(*packing.first_piece[row : row + 2])
        assert (packing.pieces[here, 2] - packing.pieces[here, 1]).sum() <= 24
        for number in set(group_P[here].tolist()):
            assert packing.pieces[here][group_P[here] == number, 0].tolist() == list(groups[number].segments)


def test_the_lengths_of_metas_preferences_leave_less_than_a_fiftieth_empty() -> None:
    """Table 6 of arXiv 2407.21783: share, tokens of an example (both answers' prompts are longer by its turns)."""
    generator = np.random.default_rng(0)
    kinds = [(0.8199, 1000.4, 271.2), (0.0693, 1621.0, 462.9), (0.0519, 1299.4, 420.9), (0.0589, 707.7, 129.9)]
    chosen = generator.choice(4, size=5000, p=np.array([k[0] for k in kinds]) / sum(k[0] for k in kinds))
    whole, answer = (np.array([k[i] for k in kinds])[chosen] for i in (1, 2))
    spread = generator.lognormal(-0.32, 0.8, size=(2, 5000))  # a mean of 1 and a long tail
    prompts = np.maximum(8, (whole - answer) * spread[0]).astype(int)
    lengths = np.stack([prompts + np.maximum(4, answer * s).astype(int) for s in (spread[1], spread[1][::-1])], 1)
    groups = [Group((2 * i, 2 * i + 1)) for i in range(5000)]
    packing, _ = pack_groups(lengths.ravel(), groups, 8192)
    print(f"{packing.padding:.2%} of the places are empty, {packing.left_out} of 5000 pairs are too long")
    assert packing.padding < 0.02
    assert packing.left_out == (lengths.sum(1) > 8192).sum() < 250
