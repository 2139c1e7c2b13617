"""Elastic weights: what a step is, and that a training cut short ends as it would have."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evosearch.errors import InputError
from evosearch.models.copying import copied
from evosearch.models.precision import fastest_numerics
from evosearch.models.weights import weights_digest
from evosearch.models.zoo import digits_resnet
from evosearch.seeding import Stream, integer
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from evosearch.surgery.slicing import Slice
from evosearch.tasks.task import Task
from evosearch.training.checkpoint import Checkpoint
from evosearch.training.elastic import ElasticConfig, Sandwich, train_elastic
from evosearch.training.objective import distillation_loss
from evosearch.training.parts import Moment
from evosearch.training.trainer import Training

CONFIG = ElasticConfig(epochs=3, batch_size=96, plans=2, optimizer="sgd", precision="float32")


@pytest.fixture(scope="module")
def base() -> nn.Module:
    torch.manual_seed(0)
    return digits_resnet(width=4).eval()


@pytest.fixture(scope="module")
def discovery(base: nn.Module) -> Discovery:
    return discover(base, (torch.randn(2, 1, 8, 8),), GroupRules(), seed=0)


def masks(discovery: Discovery, count: int) -> list[Mask]:
    """Returns nested masks: the first channels of every group, fewer and fewer."""
    groups = discovery.space.groups
    return [
        Mask({g.name: np.arange(g.size) < max(1, g.size - 1 - step) for g in groups})
        for step in range(count)
    ]


class Killed(Exception):
    pass


@pytest.fixture
def start(base: nn.Module, discovery: Discovery) -> Callable[[Mask], nn.Module]:
    """What slices begin as: parts of the base network."""
    return lambda mask: compact(base, discovery.space.groups, mask)


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_one_plan_that_keeps_all_is_ordinary_distillation(optimizer, base, discovery, few, start):
    config = CONFIG.model_copy(update={"epochs": 1, "plans": 1, "optimizer": optimizer})
    full = discovery.space.full_mask()
    elastic = train_elastic(base, discovery.space.groups, [full], few[0], config, 5, start=start)

    student = copied(base)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            target = base(images)
        return distillation_loss(
            student(images), target, labels, temperature=config.temperature, alpha=config.alpha
        )

    rng = torch.Generator().manual_seed(integer(5, Stream.ELASTIC, "images"))
    numerics = fastest_numerics(torch.device("cpu"), precision="float32")
    options = {"numerics": numerics, "optimizer": optimizer}
    list(Training(student, few[0], config, loss, rng, **options).epochs())
    ordinary = dict(student.named_parameters())
    for name, parameter in elastic.named_parameters():
        assert torch.equal(parameter, ordinary[name]), name
        assert not torch.equal(parameter, dict(base.named_parameters())[name]), name


def test_a_training_that_was_killed_ends_as_it_would_have(base, discovery, few, start, tmp_path):
    palette, digest = masks(discovery, 3), weights_digest(base)
    train, groups = few[0], discovery.space.groups
    train_three = partial(train_elastic, base, groups, palette, train, CONFIG, start=start)
    whole = train_three(0)

    def kill(done: int) -> None:
        if done == 2:
            raise Killed

    progress = Checkpoint(tmp_path / "elastic.progress", "this")
    with pytest.raises(Killed):
        train_three(0, progress=progress, on_epoch=kill)
    told: list[int] = []
    resumed = train_three(0, progress=progress, on_epoch=told.append)
    assert told == [2, 3]
    assert weights_digest(resumed) == weights_digest(whole)
    assert weights_digest(base) == digest != weights_digest(whole)
    other = train_three(1)
    assert weights_digest(other) != weights_digest(whole)


def test_what_no_plan_keeps_stays(base, discovery, few, start):
    plan = masks(discovery, 1)
    elastic = train_elastic(base, discovery.space.groups, plan, few[0], CONFIG, 0, start=start)
    equal = elastic.conv1.weight == base.conv1.weight
    assert equal[-1].all()
    assert not equal[:-1].any()


def sandwich(base: nn.Module, discovery: Discovery, count: int, **settings: int) -> Sandwich:
    config = CONFIG.model_copy(update=settings)
    groups = discovery.space.groups
    slices = [Slice(base, groups, mask) for mask in masks(discovery, count)]
    return Sandwich(base, slices, config, seed=3)


def test_a_step_takes_the_first_plan_and_draws_others_of_which_none_comes_twice(base, discovery):
    part = sandwich(base, discovery, 4, plans=3)
    seen: Counter[int] = Counter()
    for step in range(60):
        part.before_step(Moment(step=step, epoch_steps=10, epochs=6))
        taken = [part._slices.index(one) for one in part._step]
        assert taken[0] == 0
        assert len(set(taken)) == 3
        seen.update(taken)
    assert seen[0] == 60
    assert min(seen[1], seen[2], seen[3]) > 25  # 40 each are expected


def test_a_step_has_no_more_plans_than_there_are(base, discovery):
    part = sandwich(base, discovery, 2, plans=5)
    part.before_step(Moment(step=0, epoch_steps=10, epochs=6))
    assert [part._slices.index(one) for one in part._step] == [0, 1]


def test_the_objective_is_the_mean_of_the_plans_losses(base, discovery, few):
    part = sandwich(base, discovery, 3, plans=3)
    part.before_step(Moment(step=0, epoch_steps=10, epochs=6))
    images, labels = few[0].images[:8], few[0].labels[:8]
    with torch.no_grad():
        own = [
            distillation_loss(one(images), base(images), labels, temperature=4.0, alpha=0.9)
            for one in part._step
        ]
        assert float(part.loss(images, labels)) == pytest.approx(sum(map(float, own)) / 3)


def test_an_output_that_is_no_logits_is_refused_by_the_key(base, discovery, few):
    part = sandwich(base, discovery, 2)
    part._task = Task(loss=part._task.loss, metric=part._task.metric, output=lambda out: out[:, 0])
    with pytest.raises(InputError, match=r"\[elastic\] alpha = 0\.9: .* set it to 0"):
        part.loss(few[0].images[:8], few[0].labels[:8])


def test_damaged_progress_begins_anew(base, discovery, few, start, tmp_path: Path):
    path = tmp_path / "elastic.progress"
    path.write_bytes(b"torn")
    told: list[int] = []
    config = CONFIG.model_copy(update={"epochs": 1})
    train_elastic(
        base,
        discovery.space.groups,
        masks(discovery, 1),
        few[0],
        config,
        0,
        start=start,
        progress=Checkpoint(path, "this"),
        on_epoch=told.append,
    )
    assert told == [0, 1]
