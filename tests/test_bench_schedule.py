"""The bench of fine-tunings: its default is evosearch's, its variants what they are called."""

import copy
import math
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from evosearch.models.weights import weights_digest
from evosearch.models.zoo import digits_resnet
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.training.distillation import FinetuneConfig, distil
from evosearch.training.parts import Moment

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        import finetunevariants
        import paired
        import schedulepage

        yield SimpleNamespace(variants=finetunevariants, paired=paired, page=schedulepage)


def row(scripts, variant: str, seed: int, **given: Any):
    values = {
        "space": "digits",
        "ratio": 0.3,
        "images": None,
        "epochs": 3,
        "macs": 0.29,
        "search_loss": 0.1,
        "search": 90.0,
        "test": 90.0,
        "best_epoch": 3,
        "image_macs": 100,
        "seconds": 1.0,
        "commit": "abc",
    }
    return scripts.page.Row(variant=variant, seed=seed, **values | given)


def test_a_difference_is_of_the_seeds_that_both_have(scripts) -> None:
    """Points 1 and 3: mean 2, deviation sqrt(2), and t of one degree of freedom is 12.706."""
    found = scripts.paired.Difference.of({0: 1.0, 1: 3.0, 5: 9.0}, {0: 0.0, 1: 0.0, 2: 7.0})
    assert found.mean == 2
    assert found.half == pytest.approx(12.7062, abs=1e-4)
    assert found.verdict == "level"
    assert str(found) == "+2.00 (-10.71 to +14.71)"


def test_one_seed_shows_nothing(scripts) -> None:
    found = scripts.paired.Difference.of({0: 5.0}, {0: 1.0})
    assert math.isinf(found.half)
    assert found.verdict == "level"
    assert str(found) == "+4.00 (1 seed)"


def test_a_variant_is_compared_with_the_default_of_its_own_seeds(scripts) -> None:
    rows = [row(scripts, "default", seed, search=80.0 + seed) for seed in range(3)]
    rows += [
        row(scripts, "muon", 1, search=82.0, test=89.0, seconds=3.0, image_macs=50),
        row(scripts, "muon", 2, search=83.0, test=88.0, seconds=1.0),
    ]
    found = scripts.page.comparisons(rows)
    assert list(found) == ["muon", "default"]
    own = found["muon"]
    assert (own.search.mean, own.search.half, own.search.verdict) == (1.0, 0.0, "ahead")
    assert own.test.mean == -1.5
    assert (own.seconds, own.image_macs) == (2.0, 0.75)


def test_the_page_chooses_on_the_search_split_and_tells_of_test(scripts) -> None:
    rows = [row(scripts, "default", seed) for seed in range(2)]
    rows += [row(scripts, "T 2", seed, search=91.0, test=89.0) for seed in range(2)]
    rows += [row(scripts, "mixup", seed, search=88.0 + seed) for seed in range(2)]
    rows += [row(scripts, "default", 0, epochs=10)]
    text = scripts.page.page(rows, "a machine")
    assert (
        "Ahead of the default on the search split: T 2 (on test behind); behind it: none." in text
    )
    assert "## digits, 29.0 % of the MACs, 10 epochs, all train images" in text
    assert "| T 2 | 91.00 ± 0.00 (2) | +1.00 (+1.00 to +1.00) | 89.00 ± 0.00 (2)" in text


@pytest.fixture(scope="module")
def tuned(scripts, few):
    """Gives the epoch and the weights of a variant's student, each trained once."""
    torch.manual_seed(0)
    teacher, start = digits_resnet(width=4).eval(), digits_resnet(width=3).eval()

    @cache
    def found(name: str) -> tuple[int, str]:
        student, variant = copy.deepcopy(start), scripts.variants.VARIANTS[name]
        epoch = scripts.variants.tuned(
            variant, teacher, student, *few, epochs=2, seed=3, task=CLASSIFICATION
        )
        return epoch, weights_digest(student)

    return SimpleNamespace(of=found, teacher=teacher, start=start)


@pytest.mark.parametrize("name", ["default", "muon, average", "alpha 0"])
def test_what_evosearch_has_is_trained_as_it_trains(scripts, few, tuned, name: str) -> None:
    student = copy.deepcopy(tuned.start)
    settings = {"epochs": 2, **scripts.variants.VARIANTS[name].settings}
    config = FinetuneConfig.model_validate(settings)
    expected = distil(tuned.teacher, student, *few, config, 3)
    assert tuned.of(name) == (expected.best_epoch, weights_digest(student))
    assert expected.best_epoch > 0


@pytest.mark.parametrize(
    "name", ["restart", "smoothing 0.1", "mixup", "cutmix", "exponential average"]
)
def test_what_evosearch_has_not_is_something_else(tuned, name: str) -> None:
    epoch, weights = tuned.of(name)
    assert epoch > 0
    assert weights != tuned.of("default")[1]


def test_mixup_adds_images_up(scripts) -> None:
    images = torch.rand(6, 1, 4, 4)
    result, others, share = scripts.variants.mixed(images, "mixup", torch.Generator())
    assert sorted(others.tolist()) == list(range(6))
    assert 0 < share < 1
    for image, other, mix in zip(images, others, result, strict=True):
        torch.testing.assert_close(mix, share * image + (1 - share) * images[other])


def test_cutmix_shares_are_those_of_the_pixels(scripts) -> None:
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 2, 8, 6)
    rng, shares = torch.Generator().manual_seed(0), []
    for _ in range(20):
        result, others, share = scripts.variants.mixed(images, "cutmix", rng)
        shares.append(share)
        for image, other, mix in zip(range(5), others.tolist(), result, strict=True):
            if image != other:
                assert (mix == image).double().mean() == pytest.approx(share)
                assert (mix == other).double().mean() == pytest.approx(1 - share)
    assert min(shares) < 0.4
    assert max(shares) > 0.8


def test_learning_rates_begin_anew_after_a_share_of_the_epochs(scripts) -> None:
    assert scripts.variants.cycles(3, 1 / 3) == (1, 2)
    assert scripts.variants.cycles(10, 1 / 3) == (3, 7)
    assert scripts.variants.cycles(1, 1 / 3) == (1,)
    assert scripts.variants.cycles(10, None) == (10,)


def test_an_exponential_average_forgets_over_a_tenth_of_the_steps(scripts) -> None:
    """Of 20 steps it remembers 2: each step counts for a half, from the weights before."""
    model, measured = nn.Linear(1, 1, bias=False), []
    average = scripts.variants.Exponential()
    with torch.no_grad():
        model.weight.fill_(8.0)
        host = SimpleNamespace(model=model, measure_norms=lambda: measured.append(True))
        average.joined(host)
        for value in (4.0, 2.0):
            average.before_step(Moment(step=0, epoch_steps=5, epochs=4))
            model.weight.fill_(value)
            average.after_step(1)
    average.take_over()
    assert model.weight.item() == (8 + 4) / 2 / 2 + 2 / 2
    assert measured == [True]
