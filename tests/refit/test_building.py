"""Which images networks are built on, and what the one worth keeping is."""

import pytest
import torch
from torch import nn

from evosearch.models.copying import copied
from evosearch.models.precision import PLAIN
from evosearch.refit import building
from evosearch.refit.building import Build, Builder, ElasticWeights
from evosearch.refit.norms import recalibrate
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


def test_without_elastic_weights_nothing_is_built_to_say_that_nothing_is_elastic(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = seen(monkeypatch)
    assert not builder.is_elastic(mask_of(builder))
    assert counts == []


@pytest.mark.parametrize("is_elastic", [True, False])
def test_a_candidate_is_judged_once(is_elastic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was is known when it is built for keeps, and when its card is written."""
    losses = iter([0.0, 1.0] if is_elastic else [1.0, 0.0])
    weights = make("compensated")._model  # of equal shapes
    builder = make("elastic", ElasticWeights(weights=weights, loss=lambda _: next(losses)))
    built, mask = compacted(monkeypatch), mask_of(builder)
    each = 1 + is_elastic  # the network, and the changes of its channels
    builder.candidate(mask)
    assert built == [mask] * 2
    builder.final(mask)
    assert builder.is_elastic(mask) is is_elastic
    assert built == [mask] * (2 + each)
    builder.candidate(mask)
    assert built == [mask] * (2 + 2 * each)
    assert next(losses, None) is None


def test_elastic_weights_change_what_was_compensated(builder: Builder) -> None:
    """The changes of the channels that stay are added, and BatchNorm measured for the sum."""
    weights = copied(builder._model)
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter += torch.randn_like(parameter)
    before = dict(builder._model.named_parameters())
    changes = {name: after - before[name] for name, after in weights.named_parameters()}
    elastic = make("elastic", ElasticWeights(weights=weights, loss=lambda _: 0.0))
    mask = mask_of(elastic)
    kept, network = elastic.final(mask), builder.final(mask)
    stays = slice(2, None)  # `mask_of` drops the first two channels
    features = changes["6.weight"].view(4, 6, 16)[:, stays].flatten(1)
    with torch.no_grad():
        for name in ("0.weight", "0.bias", "1.weight", "1.bias", "3.bias"):
            network.get_parameter(name).add_(changes[name][stays])
        network.get_parameter("3.weight").add_(changes["3.weight"][stays, stays])
        network.get_parameter("6.weight").add_(features)
        network.get_parameter("6.bias").add_(changes["6.bias"])
    recalibrate(network, builder._batches)
    images = torch.randn(5, 1, 4, 4)
    torch.testing.assert_close(kept(images), network(images))
    # Half of the images make candidates; without the changes outputs are several apart.
    torch.testing.assert_close(
        elastic.candidate(mask)(images), network(images), rtol=0.5, atol=0.5
    )


def test_elastic_weights_that_changed_nothing_change_no_weight(builder: Builder) -> None:
    alike = make("elastic", ElasticWeights(weights=builder._model, loss=lambda _: 0.0))
    mask = mask_of(builder)
    assert alike.is_elastic(mask)
    both = alike.final(mask).parameters(), builder.final(mask).parameters()
    assert all(torch.equal(one, other) for one, other in zip(*both, strict=True))


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
