"""The union-find over labels, and label tensors as cheap views."""

import pytest
import torch

from evosearch.surgery.tracing.labels import Labels, blocks, concatenate, reshape


def same(labels: Labels, left: torch.Tensor, right: torch.Tensor) -> bool:
    return bool((labels.roots(left) == labels.roots(right)).all())


def test_uniting_is_transitive_and_broadcasts() -> None:
    labels = Labels()
    a, b, c = labels.new(4), labels.new(4), labels.new(4)
    labels.unite(a, b)
    assert not same(labels, a, c)
    labels.unite(b.reshape(4, 1).expand(4, 7), c.reshape(4, 1))
    assert same(labels, a, c)
    assert len(torch.unique(labels.roots(a))) == 4


def test_chains_of_pairs_join_in_one_call() -> None:
    labels = Labels()
    line = labels.new(2000)
    labels.unite(line[:-1], line[1:])
    assert len(torch.unique(labels.roots(line))) == 1


def test_a_frozen_class_stays_frozen_and_keeps_its_first_reason() -> None:
    labels = Labels()
    a, b = labels.new(3), labels.new(3)
    labels.freeze(b[:1], "first")
    labels.freeze(b, "second")
    labels.unite(a, b)
    reasons = [labels.reason(int(root)) for root in labels.roots(a)]
    assert reasons == ["first", "second", "second"]
    assert labels.reason(int(labels.roots(labels.new_frozen("input").reshape(1)))) == "input"


def test_tying_returns_an_expanded_view() -> None:
    labels = Labels()
    parts = labels.new(6).reshape(2, 3)
    tied = labels.tie(parts, [0])
    assert tied.stride(0) == 0
    assert same(labels, parts[0], parts[1])
    assert labels.changing(parts) == labels.changing(tied) == [1]


def test_changes_are_seen_through_the_classes() -> None:
    labels = Labels()
    map_ = labels.new(4).reshape(1, 4, 1).expand(2, 4, 9)
    assert labels.changing(map_) == [1]
    labels.tie(map_, [1])
    assert labels.changing(map_) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((2, 16, 64), (2, 4, 4, 8, 8), [((0,), (0,)), ((1,), (1, 2)), ((2,), (3, 4))]),
        ((2, 4, 4, 9), (2, 16, 9), [((0,), (0,)), ((1, 2), (1,)), ((3,), (2,))]),
        ((4, 6), (3, 8), [((0, 1), (0, 1))]),
        ((6,), (1, 6, 1), [((0,), (0, 1)), ((), (2,))]),
        ((1, 6), (6,), [((0,), ()), ((1,), (0,))]),
    ],
)
def test_blocks_of_a_reshape(
    before: tuple[int, ...], after: tuple[int, ...], expected: list[tuple[tuple[int, ...], ...]]
) -> None:
    assert [(tuple(a), tuple(b)) for a, b in blocks(before, after)] == expected


def test_reshaping_and_concatenating_copy_no_positions() -> None:
    map_ = torch.arange(6).reshape(1, 6, 1, 1).expand(2, 6, 50, 50)
    split = reshape(map_, (2, 2, 3, 2500))
    assert split.untyped_storage().size() == map_.untyped_storage().size()
    assert split[1, :, :, 7].tolist() == [[0, 1, 2], [3, 4, 5]]
    both = concatenate([map_, map_], 1)
    assert both.shape == (2, 12, 50, 50)
    assert both.untyped_storage().nbytes() == 12 * 8
    flat = reshape(map_[:, :, :2, :2], (2, 24))
    assert flat[0].tolist() == [c for c in range(6) for _ in range(4)]


def test_elements_are_counted_by_class() -> None:
    labels = Labels()
    heads = labels.new(3)
    labels.unite(heads[:1], heads[2:])
    found = labels.counts(heads[None, :, None].expand(2, 3, 5))
    assert found == {int(heads[0]): 20, int(heads[1]): 10}
