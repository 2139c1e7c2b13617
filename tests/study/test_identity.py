"""What identities say about each other."""

import json

import pytest

from evosearch.errors import InputError
from evosearch.study.identity import Identity, Part
from evosearch.study.imagelist import changes, list_digest

CATS = {f"train/cat/{number}.png": (f"c{number}", "0") for number in range(4)}
DOGS = {f"train/dog/{number}.png": (f"d{number}", "1") for number in range(4)}


def identity(images=None, **parts):
    lists = {Part(name): found for name, found in (images or {}).items()}
    given = {Part.GRAPH: "g", Part.WEIGHTS: "w", Part.TASK: "t", Part.TORCH: "2.9.0"}
    given |= {part: list_digest(found) for part, found in lists.items()}
    return Identity(parts=given | {Part(k): v for k, v in parts.items()}, images=lists)


# Parts


def test_equal_parts_are_one_identity():
    one, other = identity(), identity()
    assert one == other
    assert one.differences(other) == []
    one.require_same(other, where="here", advice="rest")


@pytest.mark.parametrize("part", list(Part))
def test_every_part_that_differs_is_named_alone(part):
    whole = dict.fromkeys(Part, "1")
    before, now = Identity(parts=whole), Identity(parts=whole | {part: "2"})
    found = before.differences(now)
    assert len(found) == 1
    assert len({tuple(before.differences(Identity(parts=whole | {p: "2"}))) for p in Part}) == len(
        Part
    )
    with pytest.raises(InputError) as caught:
        before.require_same(now, where="runs/a", advice="start a new run")
    assert str(caught.value) == f"runs/a: no longer the same: {found[0]}; start a new run"


def test_words():
    now = identity(graph="h", torch="2.10.0")
    assert identity().differences(now) == [
        "the model's graph (its code)",
        "torch (was 2.9.0, is 2.10.0)",
    ]


def test_a_part_that_one_of_two_lacks_is_a_difference():
    without = Identity(parts={Part.GRAPH: "g", Part.WEIGHTS: "w", Part.TASK: "t"})
    assert without.differences(identity()) == ["torch (was not recorded, is 2.9.0)"]
    assert identity().differences(without) == ["torch (was 2.9.0, is not recorded)"]


# Images


def test_what_became_of_images():
    def became(now):
        return changes([CATS, DOGS], [now])

    both = CATS | DOGS
    assert became(both) == "divided otherwise"
    assert became(both | {"train/dog/9.png": ("d9", "1")}) == "1 added"
    assert became(CATS) == "4 gone"
    assert became(both | {"train/cat/1.png": ("x", "0")}) == "1 changed in place: train/cat/1.png"
    bats = {name.replace("cat", "bat"): known for name, known in CATS.items()}
    assert became(bats | DOGS) == "4 renamed: train/bat/0.png ..."
    other = {name: (content, "2") for name, (content, _) in CATS.items()}
    assert became(other | DOGS) == "4 relabelled: train/cat/0.png ..."


def test_equal_images_under_more_names_are_added():
    """One of the three takes the place of the one that is gone."""
    before = {"a": ("x", "0")}
    now = dict.fromkeys("bcd", ("x", "0"))
    assert changes([before], [now]) == "2 added, 1 renamed: b"
    assert changes([now], [before]) == "2 gone, 1 renamed: a"


def test_the_splits_that_differ_are_named_with_what_became_of_their_images():
    before = identity({"train": CATS, "search": DOGS, "test": {"test/a": ("a", "0")}})
    changed = CATS | {"train/cat/2.png": ("x", "0"), "train/cat/8.png": ("c8", "0")}
    now = identity({"train": changed, "search": DOGS, "test": {"test/a": ("a", "0")}})
    assert before.differences(now) == [
        "the images of the train split (1 added, 1 changed in place: train/cat/2.png)"
    ]
    swapped = identity({"train": DOGS, "search": CATS, "test": {"test/a": ("a", "0")}})
    assert before.differences(swapped) == [
        "the images of the train and search splits (divided otherwise)"
    ]


def test_without_lists_the_splits_are_named_alone():
    before = identity(train="1", calibration="1", search="1")
    now = identity(train="2", calibration="2", search="2")
    assert before.differences(now) == ["the images of the train, calibration and search splits"]


def test_the_order_of_images_counts():
    assert list_digest(dict(reversed(CATS.items()))) != list_digest(CATS)


def test_names_and_contents_cannot_be_confused():
    lists = [{"a": ("b", "c")}, {"ab": ("", "c")}, {"a": ("bc", "")}, {"a": ("c", "b")}]
    assert len({list_digest(images) for images in lists}) == 4


# Keys


def test_a_key_follows_from_its_parts_and_settings_alone():
    key = identity().key(Part.GRAPH, Part.TASK, settings={"epochs": 3})
    assert key == identity(weights="x", torch="x").key(
        Part.TASK, Part.GRAPH, settings={"epochs": 3}
    )
    others = {
        identity(graph="h").key(Part.GRAPH, Part.TASK, settings={"epochs": 3}),
        identity(graph="t", task="g").key(Part.GRAPH, Part.TASK, settings={"epochs": 3}),
        identity().key(Part.GRAPH, Part.TASK, settings={"epochs": 4}),
        identity().key(Part.GRAPH, Part.TASK),
        identity().key(Part.GRAPH, settings={"epochs": 3}),
    }
    assert len(others | {key}) == 6
    assert len(key) == 16


def test_a_key_of_a_part_that_is_not_known_is_a_mistake():
    with pytest.raises(KeyError):
        identity().key(Part.SEARCH)


# JSON


def test_json_round_trip():
    one = identity({"train": CATS, "test": DOGS})
    text = json.dumps(one.to_json())
    assert "cat" not in text
    assert Identity.from_json(json.loads(text)) == one


def test_some_parts_alone_differ_in_these_alone():
    one = identity({"train": CATS, "search": DOGS}, weights="w")
    other = identity({"train": DOGS, "search": CATS}, weights="v")
    some = one.only([Part.GRAPH, Part.SEARCH, Part.PILLOW])
    assert set(some.parts) == {Part.GRAPH, Part.SEARCH}  # those that are known
    assert set(some.images) == {Part.SEARCH}
    (found,) = some.differences(other.only(some.parts))
    assert found.startswith("the images of the search split (")


def test_an_identity_of_another_version_is_refused():
    with pytest.raises(InputError, match="with 'moon', which this version does not know"):
        Identity.from_json({"graph": "g", "moon": "full"})


def test_images_come_back_where_they_are_those_of_the_identity():
    one = identity({"train": CATS, "search": DOGS})
    data = json.loads(json.dumps(one.images_to_json()))
    assert Identity.from_json(one.to_json()).with_images(data).images == one.images
    data["search"]["train/dog/0.png"] = ["forged", "1"]
    assert list(one.with_images(data).images) == [Part.TRAIN]
    for broken in ({"train": 3}, {"train": {"a": 3}}, {"train": {"a": ["b"]}}, {}):
        assert one.with_images(broken).images == {}
