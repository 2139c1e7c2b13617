"""Keep masks and channel groups."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evosearch.errors import InputError
from evosearch.space.mask import ChannelGroup, Mask, Member

bits = hnp.arrays(np.bool_, st.integers(1, 40))
masks = st.dictionaries(st.text(min_size=1, max_size=8), bits, min_size=1, max_size=4).map(Mask)


@given(masks)
def test_json_round_trip(mask: Mask) -> None:
    sizes = {name: len(own) for name, own in mask.items()}
    again = Mask.from_json(json.loads(json.dumps(mask.to_json())), sizes)
    assert again == mask
    assert hash(again) == hash(mask)
    assert again.key == mask.key
    for name, own in mask.items():
        np.testing.assert_array_equal(again[name], own)


@given(masks, st.data())
def test_one_other_channel_is_another_mask(mask: Mask, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(mask)))
    other = {n: own.copy() for n, own in mask.items()}
    index = data.draw(st.integers(0, len(other[name]) - 1))
    other[name][index] = ~other[name][index]
    assert Mask(other) != mask
    assert Mask(other).key != mask.key


@given(masks)
def test_order_of_groups_does_not_matter(mask: Mask) -> None:
    turned = Mask({name: mask[name] for name in reversed(list(mask))})
    assert turned == mask
    assert turned.key == mask.key


def test_hex_has_the_first_channel_in_the_highest_bit() -> None:
    mask = Mask({"g": np.array([1, 0, 0, 0, 0, 0, 1, 1, 1], dtype=bool)})
    assert mask.to_json() == {"g": "8380"}
    assert mask.widths == {"g": 4}
    assert repr(mask) == "Mask(g=4)"


def test_masks_of_other_sizes_differ_though_their_hex_is_the_same() -> None:
    assert Mask({"g": np.ones(3, dtype=bool)}) != Mask({"g": np.array([1, 1, 1, 0], dtype=bool)})


def test_a_mask_is_a_value() -> None:
    source = np.array([True, False])
    mask = Mask({"g": source})
    source[1] = True
    assert mask["g"].tolist() == [True, False]
    with pytest.raises(ValueError, match="read-only"):
        mask["g"][0] = False
    assert mask != {"g": mask["g"]}


def test_bits_have_one_dimension() -> None:
    with pytest.raises(InputError, match="'g': expected one dimension, got 2"):
        Mask({"g": np.ones((2, 2), dtype=bool)})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"h": "80"}, "names groups"),
        ({"g": "80", "h": "80"}, "names groups"),
        ({"g": "8080"}, "2 bytes for 3 channels"),
        ({"g": ""}, "0 bytes for 3 channels"),
        ({"g": "xy"}, "not hexadecimal"),
    ],
)
def test_json_of_another_space_is_refused(data: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mask.from_json(data, {"g": 3})


@given(st.integers(1, 100), st.integers(1, 20), st.data())
def test_legal_widths(size: int, multiple_of: int, data: st.DataObject) -> None:
    min_keep = data.draw(st.integers(1, size))
    widths = ChannelGroup("g", size, min_keep=min_keep, multiple_of=multiple_of).legal_widths()
    assert list(widths) == [
        w for w in range(1, size + 1) if w == size or (w >= min_keep and w % multiple_of == 0)
    ]


@pytest.mark.parametrize("rules", [{"min_keep": 0}, {"min_keep": 5}, {"multiple_of": 0}])
def test_impossible_rules_are_refused(rules: dict[str, int]) -> None:
    with pytest.raises(InputError, match="group 'g'"):
        ChannelGroup("g", 4, **rules)


def test_index_of_a_flattened_member() -> None:
    member = Member(tensor="fc.weight", dim=1, positions=(0, 1, 2, 3, 8, 9))
    index = ChannelGroup("g", 3, (member,)).index(member)
    assert index.tolist() == [[0, 1], [2, 3], [8, 9]]


def test_then_writes_the_inner_mask_into_the_places_that_stay() -> None:
    outer = Mask({"a": np.array([1, 0, 1, 1], dtype=bool), "b": np.array([1, 1], dtype=bool)})
    inner = Mask({"a": np.array([0, 1, 1], dtype=bool), "b": np.array([1, 0], dtype=bool)})
    both = outer.then(inner)
    assert both["a"].tolist() == [False, False, True, True]
    assert both["b"].tolist() == [True, False]


@given(masks, st.data())
def test_cuts_compose(first: Mask, data: st.DataObject) -> None:
    """Indexing twice is indexing by the composed mask; what keeps all changes nothing."""

    def within(mask: Mask) -> Mask:
        return Mask({n: data.draw(hnp.arrays(np.bool_, int(b.sum()))) for n, b in mask.items()})

    second = within(first)
    third = within(second)
    for name, bits in first.items():
        channels = np.arange(bits.size)
        np.testing.assert_array_equal(
            channels[bits][second[name]], channels[first.then(second)[name]]
        )
    assert first.then(second).then(third) == first.then(second.then(third))
    assert first.then(Mask({n: np.ones(w, dtype=bool) for n, w in first.widths.items()})) == first


@pytest.mark.parametrize("inner", [{"g": [1, 0]}, {"h": [1]}, {"g": [1], "h": [1]}])
def test_a_mask_of_another_network_does_not_follow(inner: dict[str, list[int]]) -> None:
    outer = Mask({"g": np.array([1, 0], dtype=bool)})
    other = Mask({name: np.array(bits, dtype=bool) for name, bits in inner.items()})
    with pytest.raises(InputError, match=r"not of the network that Mask\(g=1\) leaves"):
        outer.then(other)
