"""The gradient of a batch that goes through its network in pieces."""

import copy

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional

from evosearch.data.splits import SearchSplit, TrainSplit
from evosearch.errors import InputError
from evosearch.models.precision import PLAIN
from evosearch.space.mask import Mask
from evosearch.surgery.discovery import GroupRules, discover
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.training.base_training import TrainConfig
from evosearch.training.distillation import FinetuneConfig
from evosearch.training.elastic import ElasticConfig
from evosearch.training.gradient import Gradient
from evosearch.training.imitation import imitating
from evosearch.training.pacing import parse_pace
from evosearch.training.parts import Part
from evosearch.training.penalized import Penalized
from evosearch.training.towards import Goal, Towards
from evosearch.training.trainer import Training
from tests.data.helpers import split_of

Splits = tuple[TrainSplit, SearchSplit]


class Squares(Part):
    """The sum of the squares of all weights, and how often it was asked for."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self.asked = model, 0

    def term(self) -> Tensor:
        self.asked += 1
        return torch.stack([p.square().sum() for p in self._model.parameters()]).sum()


def slope() -> nn.Linear:
    """y = w x with w = 2."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    return model


def test_pieces_count_by_their_images() -> None:
    """Of x = 1, 2, 3, 4, 5 with loss w x^2 and w = 2, in pieces of two, two and one.

    The mean of x^2 is 11: the gradient; the objective is 22. The mean of the pieces' means, 40/3,
    is another number.
    """
    model, sizes = slope(), []

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        sizes.append(labels.tolist())
        return (model(images) * images).mean()

    images, labels = torch.arange(1.0, 6).view(5, 1), torch.arange(5)
    found = Gradient(model, loss, (), PLAIN, 3)(images, labels)
    assert sizes == [[0, 1], [2, 3], [4]]
    assert (found.item(), found.requires_grad) == (22.0, False)
    assert model.weight.grad.item() == pytest.approx(11.0, rel=1e-6)


def test_what_parts_add_counts_once() -> None:
    """With w^2 = 4 beside it the objective is 26 and the gradient 11 + 2 w = 15."""
    model = slope()
    squares = Squares(model)
    gradient = Gradient(
        model, lambda images, _: (model(images) * images).mean(), [squares], PLAIN, 3
    )
    for _ in range(2):  # the second in place of the first
        found = gradient(torch.arange(1.0, 6).view(5, 1), torch.arange(5))
        assert found.item() == pytest.approx(26.0, rel=1e-6)
        assert model.weight.grad.item() == pytest.approx(15.0, rel=1e-6)
    assert squares.asked == 6


class Plain(nn.Module):
    """Two convolutions without BatchNorm, in double."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 4, 3)
        self.last = nn.Linear(64, 10)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.second(self.first(images.double()).relu()).relu()
        return self.last(hidden.flatten(1))


@pytest.mark.parametrize("pieces", [2, 3, 7])
def test_without_batchnorm_a_training_in_pieces_is_that_in_one(pieces: int) -> None:
    """Distilled, penalised, and cut on its way; steps of eleven images, in uneven pieces."""
    torch.manual_seed(0)
    base, pixels = Plain().eval(), torch.randn(33, 1, 8, 8)
    split = split_of(TrainSplit, pixels, [position % 10 for position in range(33)])
    discovery = discover(base, (pixels[:2],), GroupRules(), seed=0)
    sizes = discovery.space.sizes
    goal = Goal(
        mask=Mask({name: np.arange(size) % 2 == 0 for name, size in sizes.items()}),
        scores={name: np.arange(float(size)) for name, size in sizes.items()},
    )
    config = TrainConfig(epochs=2, batch_size=11, lr=0.05)
    ends = []
    for accumulate in (None, pieces):
        student = copy.deepcopy(base)
        with imitating(
            base, student, [], temperature=4.0, alpha=0.9, attention=0.0, task=CLASSIFICATION
        ) as loss:
            training = Training(
                student,
                split,
                config.model_copy(update={"accumulate": accumulate}),
                loss,
                torch.Generator().manual_seed(1),
                discovery=discovery,
                parts=[
                    Penalized({"group_lasso": 1e-2}),
                    Towards(goal, parse_pace({"name": "at", "epoch": 1}, 2)),
                ],
            )
            losses = list(training.epochs())
        ends.append((losses, list(student.parameters())))
    (whole, expected), (found, weights) = ends
    assert weights[0].shape == (3, 1, 3, 3)
    assert found == pytest.approx(whole, rel=1e-9)
    for own, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)


def test_batchnorm_is_of_a_piece() -> None:
    """Of 1, 3 and 5, 9 the means are 2 and 7: halfway to each from 0 is first 1, then 4."""
    model = nn.Sequential(nn.BatchNorm1d(1, momentum=0.5), nn.Linear(1, 1))
    gradient = Gradient(model, lambda images, _: model(images).mean(), (), PLAIN, 2)
    gradient(torch.tensor([[1.0], [3.0], [5.0], [9.0]]), torch.arange(4))
    assert model[0].running_mean.item() == 4.0


def test_norms_are_measured_on_as_many_images_as_a_piece_has(few: Splits) -> None:
    model, seen = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)), []
    config = TrainConfig(epochs=1, batch_size=64, accumulate=4)
    training = Training(
        model,
        few[0],
        config,
        lambda images, labels: functional.cross_entropy(model(images), labels),
        torch.Generator().manual_seed(0),
    )
    model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    for _ in training.epochs():
        assert seen == [16] * 12
        seen.clear()
        training.measure_norms()
        assert seen == [16] * 12


@pytest.mark.parametrize(
    ("kind", "section"),
    [(TrainConfig, "train"), (FinetuneConfig, "finetune"), (ElasticConfig, "elastic")],
)
def test_more_pieces_than_images_are_refused(kind: type[BaseModel], section: str) -> None:
    assert kind(batch_size=8, accumulate=8)
    message = rf"\[{section}\] accumulate = 9: expected at most batch_size = 8, an image for each"
    with pytest.raises(InputError, match=message):
        kind(batch_size=8, accumulate=9)


def test_so_are_they_where_the_data_make_smaller_batches(few: Splits) -> None:
    """17 images in batches of at most 16 are nine and eight."""
    train, config = few[0].take(torch.arange(17)), TrainConfig(batch_size=16, accumulate=9)
    with pytest.raises(InputError, match="batches of 8 images in 9 pieces: each needs one or"):
        Training(slope(), train, config, lambda x, _: x.mean(), torch.Generator())


def test_with_batchnorm_a_piece_has_two_images_or_more(few: Splits) -> None:
    """It takes no statistics of one value per channel; torch would say so, in the first step."""
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    few_images = few[0].take(torch.arange(8))

    def trained(accumulate: int) -> list[float]:
        config = TrainConfig(epochs=1, batch_size=8, accumulate=accumulate)
        objective = lambda x, y: functional.cross_entropy(model(x), y)  # noqa: E731
        return list(Training(model, few_images, config, objective, torch.Generator()).epochs())

    assert len(trained(4)) == 1
    with pytest.raises(InputError, match="8 images in 5 pieces: each needs two or more for Batch"):
        trained(5)
