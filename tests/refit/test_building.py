"""Which images networks are built on, and what the one worth keeping is."""

import pytest
import torch
from torch import nn

from evosearch.models.precision import PLAIN
from evosearch.refit import building
from evosearch.refit.building import Build, Builder, ElasticWeights
from evosearch.space.mask import Mask
from evosearch.surgery.discovery import GroupRules, discover


def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that collects how many images each compensation is made from."""
    counts: list[int] = []
    original = building.Compensation

    def counting(model, layers, images, seed, **options):
        counts.append(len(images))
        return original(model, layers, images, seed, **options)

    monkeypatch.setattr(building, "Compensation", counting)
    return counts


def compacted(monkeypatch: pytest.MonkeyPatch) -> list[Mask]:
    """Returns a list that collects the mask of every network that is built."""
    masks: list[Mask] = []
    original = building.compact

    def noting(model, groups, mask):
        masks.append(mask)
        return original(model, groups, mask)

    monkeypatch.setattr(building, "compact", noting)
    return masks


@pytest.fixture
def builder() -> Builder:
    return make("compensated")


def make(build: Build, elastic: ElasticWeights | None = None) -> Builder:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 4),
    ).eval()
    found = discover(model, (torch.randn(2, 1, 4, 4),), GroupRules(), seed=0)
    return Builder(
        model=model,
        discovery=found,
        batches=list(torch.randn(60, 1, 4, 4).split(20)),
        images=30,
        build=build,
        numerics=PLAIN,
        seed=0,
        elastic=elastic,
    )


def mask_of(builder: Builder) -> Mask:
    full = builder._discovery.space.full_mask()
    return Mask({name: [i > 1 for i in range(len(bits))] for name, bits in full.items()})


def test_without_elastic_weights_nothing_is_built_to_say_that_there_is_no_slice(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = seen(monkeypatch)
    assert not builder.is_slice(mask_of(builder))
    assert counts == []


@pytest.mark.parametrize("is_slice", [True, False])
def test_a_candidate_is_judged_once(is_slice: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was is known when it is built for keeps, and when its card is written."""
    losses = iter([0.0, 1.0] if is_slice else [1.0, 0.0])
    weights = make("compensated")._model  # of equal shapes
    builder = make("elastic", ElasticWeights(weights=weights, loss=lambda _: next(losses)))
    built, mask = compacted(monkeypatch), mask_of(builder)
    builder.candidate(mask)
    assert built == [mask] * 2
    builder.final(mask)
    assert builder.is_slice(mask) is is_slice
    assert built == [mask] * 3
    builder.candidate(mask)
    assert built == [mask] * 4


def test_candidates_take_few_images_and_the_kept_network_all(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = seen(monkeypatch)
    mask = mask_of(builder)
    for _ in range(2):
        builder.candidate(mask)
        builder.final(mask)
    assert counts == [30, 60]


def test_images_that_would_not_fit_in_memory_are_left_out(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = seen(monkeypatch)
    monkeypatch.setattr(building, "LARGEST_MAP", 8 * 16 * 25)  # 25 images of the first layer
    builder.candidate(mask_of(builder))
    builder.final(mask_of(builder))
    assert counts == [25, 25]


def test_the_full_mask_is_the_base_network_exactly(builder: Builder) -> None:
    full = builder._discovery.space.full_mask()
    images = torch.randn(5, 1, 4, 4)
    with torch.no_grad():
        expected = builder._model(images)
        assert torch.equal(builder.final(full)(images), expected)
        torch.testing.assert_close(builder.candidate(full)(images), expected)
